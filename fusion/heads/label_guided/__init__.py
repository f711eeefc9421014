"""LE-MER: the head, its label attention and its label embeddings."""
