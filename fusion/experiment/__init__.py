"""Experiments: from options to a run that can start."""
