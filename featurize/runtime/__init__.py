"""The machine that encoders run on: devices, memory, workers."""
