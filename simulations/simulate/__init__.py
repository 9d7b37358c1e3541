"""`fleetlearn simulate`."""
