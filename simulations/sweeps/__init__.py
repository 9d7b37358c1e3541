"""Searches for better experiments: Optuna suggests, worker processes run, one storage remembers."""
