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
    messages_pending_max: int = 50
    """Cloud-to-device messages of one device that have not ended; the next one is refused with 403."""
    message_life_s: float = 3600.0
    """Of a message that does not say when it expires; then it ends, with feedback to who asked for it."""
    message_lock_s: float = 60.0
    """How long a device may keep a message to itself; then it is offered again."""
    message_deliveries_max: int = 10
    """How often a device may abandon a message; then it ends."""
    feedback_batch_max: int = 64
    """Records in one batch of feedback; a full batch is handed out at once."""
    feedback_wait_s: float = 15.0
    """Age of the oldest record at which a batch that is not full is handed out."""
    notice_lock_s: float = 60.0
    """How long a service may keep a batch of feedback, or a file's notice; then it is offered again."""
    notice_life_s: float = 3600.0
    """Age of feedback or a file's notice that nobody fetched; older ones are removed."""
    uploads_max: int = 10
    """Open uploads of files of one device; the next one is refused with 429."""
    file_bytes_max: int = 64 * 1024 * 1024
    """One uploaded file; more is refused with 413."""
    file_s: float = 600.0
    """Until an uploaded file is complete; a slower one is refused with 408."""
    files_bytes_max: int = 10 * 1024**3
    """All uploaded files; the next one is refused with 413, until an operator has made room."""
    retention_s: float = 7 * 24 * 3600.0
    """Age of an event; older ones are removed."""
    retention_bytes_max: int = 2 * 1024**3
    """Bytes of all events' bodies and properties; the oldest are removed."""
    retention_interval_s: float = 60.0
    consumers_max: int = 64
    """Connections to the AMQP endpoint; the next one is closed at once."""
    consumer_groups_max: int = 20
    """Groups of readers, `$Default` included; the next one is refused with 403."""
    devices_max: int = 1_000_000
    """Identities; the next one is refused with 403."""
    modules_max: int = 50
    """Modules of one device; the next one is refused with 413."""
    enrollment_groups_max: int = 100
    """Groups of the provisioning service; the next one is refused with 403."""
    provisioning_poll_s: int = 3
    """What a registering device is told to wait before it asks for the outcome."""
    readers_max: int = 64
    """Callers waiting for events; the next one is refused with 429."""
    body_bytes_max: int = 512 * 1024
    """Of a service request; more is refused with 413."""
    body_s: float = 30.0
    """Until a service request's body is complete; a slower one is refused with 408."""
    configurations_max: int = 100
    """Automatic configurations; the next one is refused with 403."""
    jobs_max: int = 10_000
    """Jobs, those of the last 30 days included; the next one is refused with 403."""
    jobs_running_max: int = 10
    """Jobs at once; the next one is queued."""
