"""What `heat-decompose` is made of: the weights it may factorise, and the ops it writes."""
