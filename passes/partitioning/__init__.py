"""What `partition-host` does before it forms tasks."""
