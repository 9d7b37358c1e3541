"""Deals data to clients: settings by name to shares of the examples. Pure; the seed is an argument."""
