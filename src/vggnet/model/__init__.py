"""VGG networks: built from the table, inferred from weights, transferred and folded."""
