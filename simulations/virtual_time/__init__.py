"""What rounds cost in the world's time: synchronous with a deadline, or asynchronous; no model is touched here."""
