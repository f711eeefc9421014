"""Frozen encoders of speech and text, each exact under batching."""
