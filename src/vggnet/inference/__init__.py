"""Images to classes and probabilities."""
