"""Fusion heads and their training on caches; only `fusion.end_to_end` reads recordings and hubs."""
