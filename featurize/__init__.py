"""Feature extraction: reads a corpus folder and writes the rows of a cache."""
