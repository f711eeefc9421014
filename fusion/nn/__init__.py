"""Layers shared by fusion heads."""
