"""Every bound of the hub in one place, with its default. Listed in docs/reference/localhub.md."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what the outside can make the hub do; at each, the sentence says what happens."""

    connections_max: int = 10_000
    """Sockets, those in their handshake included; the next one is closed at once."""
    handshake_s: float = 10.0
    """TLS; a slower one is closed."""
    connect_s: float = 10.0
    """From TLS to a valid CONNECT; a slower one is closed."""
    in_flight_max: int = 64
    """Events of one connection that are not on disk yet; reading from it pauses."""
    inbox_bytes_max: int = 512 * 1024
    """Received and not handled bytes of one connection; reading from it pauses."""
    outgoing_bytes_max: int = 1024 * 1024
    """Bytes waiting to be sent to one device; it is closed as too slow."""
    pending_bytes_max: int = 64 * 1024 * 1024
    """Events waiting for the disk, all devices together; reading pauses for all."""
    methods_pending_max: int = 32
    """Direct methods waiting for one device's answer; the next one is refused with 429."""
    retention_s: float = 7 * 24 * 3600.0
    """Age of an event; older ones are removed."""
    retention_bytes_max: int = 2 * 1024**3
    """Bytes of all events' bodies and properties; the oldest are removed."""
    retention_interval_s: float = 60.0
    devices_max: int = 1_000_000
    """Identities; the next one is refused with 403."""
    readers_max: int = 64
    """Callers waiting for events; the next one is refused with 429."""
    body_bytes_max: int = 512 * 1024
    """Of a service request; more is refused with 413."""
    body_s: float = 30.0
    """Until a service request's body is complete; a slower one is refused with 408."""
