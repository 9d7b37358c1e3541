"""The CPU engine: measures which way of computing is fastest for the model and machine at hand, and takes it."""
