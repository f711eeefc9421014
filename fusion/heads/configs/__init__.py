"""Configurations of the built-in heads, apart from the heads: they are listed and checked without torch."""
