"""Prediction: from a run folder and recordings to labels with probabilities."""
