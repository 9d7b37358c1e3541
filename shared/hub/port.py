"""What every hub offers, with the semantics of the narrowest one, Azure IoT Hub.

Events go up at least once. Each device has a desired document (the cloud writes it) and a reported document (the
device writes it), both versioned. A command is a short call with a reply and a timeout; it fails when the device is
offline, so it only ever rings a doorbell. There are no topics, no retained messages and no QoS 2 here: an adapter may
use them inside.

Everything may arrive twice, late, and in any order. Bytes larger than a message travel beside the hub, over HTTPS.
Adapters translate every foreign exception into a `HubError`, also while iterating, and leave back-off to their caller.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shared.errors import FleetlearnError
from shared.ids import DeviceId

EVENT_BYTES_MAX = 256 * 1024
"""Largest event, headers included. IoT Hub refuses more, so every hub does."""
COMMAND_BYTES_MAX = 128 * 1024
"""Largest command payload, and largest reply."""
DOCUMENT_BYTES_MAX = 32 * 1024
"""Largest desired document, and largest reported document, as compact JSON."""

Document = Mapping[str, Any]
"""A JSON object. `Any`: JSON is only typed once a message model has parsed it."""


class HubError(FleetlearnError):
    """The hub did not do what was asked; the base of this port's family."""

    code = "hub_error"


class HubUnavailableError(HubError):
    """The hub cannot be reached, or the connection broke. Try again after a back-off."""

    code = "hub_unavailable"


class HubRefusedError(HubError):
    """The hub refused this identity or this request. Trying again does not help."""

    code = "hub_refused"


class UnknownDeviceError(HubError):
    """The hub has no such device."""

    code = "hub_unknown_device"


class DeviceOfflineError(HubError):
    """The device is not connected, or did not answer a command in time."""

    code = "device_offline"


class VersionConflictError(HubError):
    """The document changed since it was read."""

    code = "version_conflict"


class LogStartedOverError(HubError):
    """The event log is shorter than what was read of it: the hub lost its data, and started a new log."""

    code = "log_started_over"


@dataclass(frozen=True)
class Versioned:
    """A document and its version; versions grow by at least one with each change."""

    document: Document
    version: int


@dataclass(frozen=True)
class Twin:
    """Both documents of a device, as the hub has them."""

    desired: Versioned
    reported: Versioned


@dataclass(frozen=True)
class CommandReply:
    """What the device answered: an HTTP-like status and a JSON value."""

    status: int
    payload: Any


def log_started_over(*, newest: int, after: int) -> LogStartedOverError:
    """What `read_events` raises when the newest event of the log has a lower offset than the one asked for."""
    return LogStartedOverError(
        f"Expected an event log with an offset of at least {after}, got one that ends at {newest}",
        hint="The hub's data was lost or replaced; readers start over.",
    )


CommandHandler = Callable[[str, Any], Awaitable[CommandReply]]
"""Called with (command name, JSON payload); answers at once."""


class DeviceHub(Protocol):
    """One device's end of the hub. `connect` first; after an error, `connect` again.

    `wait_closed` returns when the connection is gone, for whatever reason, so that the agent has one place to wait.
    """

    async def connect(self) -> None:
        """Connects and authenticates. Raises HubUnavailableError or HubRefusedError."""
        ...

    async def send_event(self, payload: bytes) -> None:
        """Returns once the hub has acknowledged, which means: has it on disk. Raises HubUnavailableError."""
        ...

    async def get_twin(self) -> Twin: ...

    def desired_changes(self) -> AsyncIterator[Versioned]:
        """Patches to the desired document as they arrive (`None` deletes); not queued while offline.

        Ends when the connection ends: ask again after each connect. Patches are kept from `connect` on, so none is
        missed between it and the first step. After each connect read `get_twin` and ignore patches up to its version.
        """
        ...

    async def report(self, patch: Document) -> None:
        """Merges a patch into the reported document (`None` deletes)."""
        ...

    def on_command(self, handler: CommandHandler) -> None:
        """Sets the one handler of commands; call before `connect`."""
        ...

    async def wait_closed(self) -> None: ...

    async def close(self) -> None:
        """Closes; safe to call twice, and on a hub that never connected."""
        ...


@dataclass(frozen=True)
class Event:
    """One event of the hub's durable log. `device_id` is what the hub authenticated, whatever the payload claims."""

    device_id: DeviceId
    offset: int
    enqueued_at: float
    """Seconds since the epoch, by the hub's clock."""
    payload: bytes


class FleetHub(Protocol):
    """The cloud's end of the hub."""

    async def add_device(self, device_id: DeviceId) -> None:
        """Lets a device with this name connect by a certificate of the fleet's CA. Doing it twice does no harm."""
        ...

    async def remove_device(self, device_id: DeviceId) -> None:
        """Forgets the device and closes its connection. Removing an unknown device does no harm."""
        ...

    async def get_twin(self, device_id: DeviceId) -> Twin: ...

    async def set_desired(self, device_id: DeviceId, patch: Document) -> int:
        """Merges a patch into the desired document (`None` deletes) and returns the new version."""
        ...

    async def command(self, device_id: DeviceId, name: str, payload: Any, *, timeout_s: float) -> CommandReply:
        """Calls the device. Raises DeviceOfflineError when it is away or silent for `timeout_s`."""
        ...

    async def read_events(self, after_offset: int, *, limit: int, wait_s: float) -> list[Event]:
        """Up to `limit` events with a greater offset, oldest first; waits up to `wait_s` for the first.

        Offsets start at 1; read from 0 to read everything that is kept. The reader stores its own offset, in the same
        transaction as what it did with the events. Raises LogStartedOverError when no event of the log ever had
        `after_offset`, because it is a new one: read from 0 then.
        """
        ...

    async def close(self) -> None: ...
