"""From a corpus folder to the rows of a cache."""
