"""VGG networks: built from the table, read off a file's shapes, batch norm folded."""
