"""The same training, timed on each device: measured, kept in a file, and reported."""
