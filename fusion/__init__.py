"""Fusion heads and their training on caches; recordings, corpus folders and hubs are never read."""
