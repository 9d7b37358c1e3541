"""What can keep a bench from measuring."""

from shared.errors import FleetlearnError


class BenchError(FleetlearnError):
    """A program of the bench did not start, or did not answer as it should."""

    code = "bench_failed"
