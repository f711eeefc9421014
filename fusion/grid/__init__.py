"""Grids: every combination of fields on every fold and seed, many models at a time."""
