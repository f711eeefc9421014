"""Fusion heads and their training: reads caches, never a recording, a corpus folder or a hub."""
