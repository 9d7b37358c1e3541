"""What keeps a recorded fleet from being replayed."""

from shared.errors import FleetlearnError


class TraceError(FleetlearnError):
    """A file that is not a trace."""

    code = "bad_trace"
