"""What `assign-fixed-point` is made of: types and bounds, and the steps of attention."""
