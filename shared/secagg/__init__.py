"""Secure aggregation: the server learns the sum of a cohort's updates, and nothing else about any of them."""
