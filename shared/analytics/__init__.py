"""Federated analytics: what may be asked of a feature over the fleet, and what one device answers."""
