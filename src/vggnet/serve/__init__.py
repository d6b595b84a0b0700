"""A model behind HTTP: an API, and a page to draw a digit on."""
