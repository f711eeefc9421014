"""Auxiliary losses with their papers."""
