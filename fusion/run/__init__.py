"""Runs on disk, from a plan to results."""
