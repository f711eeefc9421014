"""Encoders that learn: from the rows of a cached stream to the rows that a head reads."""
