"""Models that leave the machine: bundles of runs, their model cards, ONNX files, and the way to a hub."""
