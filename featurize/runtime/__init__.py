"""Hardware that encoders run on: devices, memory, dask workers."""
