"""The ground of mmer: one HDF5 file of encoder features per corpus, and nothing that needs torch."""
