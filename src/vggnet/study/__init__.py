"""Many trainings under one budget, and what they say together."""
