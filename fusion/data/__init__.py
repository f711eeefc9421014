"""Features of a cache as batches."""
