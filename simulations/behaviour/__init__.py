"""When clients are there, how fast they are, and what is lost: pure functions of (seed, client, time)."""
