"""Files: models, checkpoints, run folders, plots, exports."""
