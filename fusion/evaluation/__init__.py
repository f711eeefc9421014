"""Scores of predictions, and how certain they are."""
