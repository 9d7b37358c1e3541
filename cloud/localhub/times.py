"""Times as IoT Hub writes them."""

from datetime import UTC, datetime


def iso(seconds: float) -> str:
    """Seconds since the epoch in ISO 8601, UTC, microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
