"""The built-in demo corpus: its script and its synthetic voices."""
