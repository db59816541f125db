"""What to run, and the command line."""
