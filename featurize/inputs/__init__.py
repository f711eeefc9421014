"""Inputs of the encoders: recordings and words."""
