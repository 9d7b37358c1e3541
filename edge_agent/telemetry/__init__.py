"""What the device says of itself: a durable outbox, latency windows, drift."""
