"""Pictures of scores and predictions, drawn by matplotlib without a display."""
