"""The published systems and their baselines, one file or folder each."""
