"""Engines that train the models of a grid."""
