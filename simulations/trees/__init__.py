"""Experiments whose model is an ensemble of boosted trees."""
