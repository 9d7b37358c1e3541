"""Who the clients are: up to ten million, lazily; cohorts drawn from them, and their batches planned."""
