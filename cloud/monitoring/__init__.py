"""Monitoring: what serving devices report, and the alerts an operator should look at."""
