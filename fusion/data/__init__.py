"""Batches of cached features."""
