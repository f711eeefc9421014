"""Reports: runs and grids as one HTML file that needs nothing else."""
