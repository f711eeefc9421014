"""The built-in corpus: what its voices say and how they sound."""
