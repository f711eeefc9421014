"""Inputs of the encoders: waveforms and transcripts."""
