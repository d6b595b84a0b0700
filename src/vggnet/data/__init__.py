"""From files to uint8 arrays, and from arrays to batches on the device."""
