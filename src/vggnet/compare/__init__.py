"""The same training timed on each device: measurement, result file and report."""
