"""Engines that train the models of a grid, on one device or on a cluster."""
