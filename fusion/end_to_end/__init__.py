"""Encoders and heads as one model: fine-tuning and pre-training from the cache; the door between the two wings."""
