"""Train many networks with the same settings, and report what they show together."""
