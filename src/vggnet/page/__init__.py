"""The page to draw on, as browsers load it: from a server, or as one file with its own engine."""
