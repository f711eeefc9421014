"""Corpus readers: each reads a corpus folder and returns utterances with their labels as published."""
