"""Benches: ours beside the baseline, in one run. `fleetlearn bench NAME [--json]`."""
