"""Augmented views of utterances: speech with less noise, texts with one word replaced."""
