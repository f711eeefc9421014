"""Transcripts by speech recognition, and encoders of text that read them."""
