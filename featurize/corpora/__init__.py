"""Readers of corpus folders: raw labels in, utterances out."""
