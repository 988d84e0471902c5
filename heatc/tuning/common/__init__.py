"""What the rooms of tuning share: samples, the packed model, goals, plans as data."""
