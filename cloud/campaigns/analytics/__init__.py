"""Questions about a feature over the fleet: one round, whose updates are sums."""
