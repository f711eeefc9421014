"""Auxiliary losses, each from its paper."""
