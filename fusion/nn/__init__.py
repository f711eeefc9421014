"""Layers that heads share."""
