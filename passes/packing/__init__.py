"""What `pack-tokens` does to values that have tokens."""
