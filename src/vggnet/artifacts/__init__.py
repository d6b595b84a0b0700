"""What training leaves: model files, run folders, pictures."""
