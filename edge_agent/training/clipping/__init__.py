"""Clipped sums of per-example gradients, for DP-SGD."""
