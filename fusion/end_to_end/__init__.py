"""Encoders and heads together: fine-tuning, pre-training, prediction, bundles; the door between the two wings."""
