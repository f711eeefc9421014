"""The feature cache: one HDF5 file of encoder features per corpus, its readers, writers and checks; no torch."""
