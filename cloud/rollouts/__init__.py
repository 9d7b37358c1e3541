"""Rollouts: moving devices to a release in waves; a plan is stored, shown, then executed under gates."""
