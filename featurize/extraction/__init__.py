"""Extraction: from a planned corpus to committed rows."""
