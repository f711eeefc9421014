"""LE-MER: the head, its label attention, its label embeddings and the words and codes that describe a class."""
