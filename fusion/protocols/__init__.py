"""Protocols: utterances a model is trained on, chosen on and tested on."""
