"""Training of one model on one fold."""
