"""Second-stage pre-training: the self-supervised losses of wav2vec 2.0 on the training subset of each fold."""
