"""Secure aggregation in campaigns: four more steps of work before a round's sum can be read."""
