"""What training leaves: model files, run folders, images."""
