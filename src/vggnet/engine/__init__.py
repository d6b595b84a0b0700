"""The training loop and evaluation, on whatever device and however many processes."""
