"""The measured workloads, as values: what is learned, how the data lie, how clients train."""
