"""Events of an Azure IoT Hub, by its Event Hubs-compatible endpoint: adapts azure-eventhub to the port's one offset.

All partitions are read by one consumer of one group. What arrives goes to the inbox with the partition's position, and
is read from there: so nothing is lost between the SDK and the coordinator's own transaction, and no storage account is
needed for checkpoints. The SDK's habits that this file takes into account:
- It reports failures to a callback and tries again for ever: `read` raises the last one while nothing comes.
- After an error it reads a partition again from its starting position: that is our own mapping, which moves on.
- Without `owner_level` a second coordinator would read beside the first; with it the older one is cut off.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import structlog

from cloud.hubs.inbox import Arrival, Inbox
from shared.hub.port import Event, HubError, HubRefusedError, HubUnavailableError

if TYPE_CHECKING:
    from azure.eventhub import EventData
    from azure.eventhub.aio import EventHubConsumerClient, PartitionContext

_log = structlog.get_logger("hub")

UNREAD_MAX = 10_000
"""Events in the inbox; at more, receiving pauses until the coordinator has caught up."""
_BATCH_MAX = 300
_BATCH_S = 1.0
_DEVICE = b"iothub-connection-device-id"
_START = "-1"


class EventHubEvents:
    """The events of one hub, in one order. `read` starts receiving; `close` ends it.

    Args:
        make_client: Makes a fresh `azure.eventhub.aio.EventHubConsumerClient` inside the running loop.
        inbox_file: Where events wait for the reader, and each partition's position is kept.
    """

    def __init__(self, make_client: "Callable[[], EventHubConsumerClient]", *, inbox_file: Path) -> None:
        self._make_client = make_client
        self._inbox = Inbox(inbox_file)
        self._positions: dict[str, Any] = {}  # What the SDK takes: a number, or "-1" for the beginning.
        self._arrived = asyncio.Event()
        self._read = asyncio.Event()
        self._failure: HubError | None = None
        self._receiving: asyncio.Task[None] | None = None

    async def read(self, after: int, *, limit: int, wait_s: float) -> list[Event]:
        """As `FleetHub.read_events`. Raises HubError."""
        if self._receiving is None:
            self._receiving = asyncio.create_task(self._receive())
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            self._arrived.clear()
            events = await asyncio.to_thread(self._inbox.read, after, limit=limit)
            self._read.set()
            if events:
                return events
            if self._failure is not None:
                raise self._failure
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrived.wait()
            except TimeoutError:
                return []

    async def close(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.wait({self._receiving})
        self._inbox.close()

    async def _receive(self) -> None:
        # The SDK logs what it also reports.
        logging.getLogger("azure.eventhub").setLevel(logging.CRITICAL)
        try:
            async with self._make_client() as client:
                self._positions = dict.fromkeys(await client.get_partition_ids(), _START)
                self._positions |= await asyncio.to_thread(self._inbox.positions)
                await client.receive_batch(
                    self._keep,
                    on_error=self._failed,
                    starting_position=self._positions,
                    max_batch_size=_BATCH_MAX,
                    max_wait_time=_BATCH_S,
                    owner_level=0,
                )
        except Exception as error:
            # Whatever ended it, the next read starts it again, after its caller's back-off.
            await self._failed(None, error)
        finally:
            self._receiving = None

    async def _keep(self, partition: "PartitionContext", events: "list[EventData]") -> None:
        """Called with what arrived, and with nothing now and then."""
        self._failure = None
        arrivals = [arrival for event in events if (arrival := _arrival(event)) is not None]
        if not arrivals:
            return
        await asyncio.to_thread(self._inbox.put, partition.partition_id, arrivals)
        self._positions[partition.partition_id] = arrivals[-1].sequence_number
        self._arrived.set()
        while await asyncio.to_thread(self._inbox.unread) > UNREAD_MAX:
            self._read.clear()
            await self._read.wait()

    async def _failed(self, partition: "PartitionContext | None", error: Exception) -> None:
        from azure.eventhub.exceptions import AuthenticationError

        if self._failure is None:
            _log.warning("events_unreachable", reason=f"{type(error).__name__}: {error}"[:500])
        kind = HubRefusedError if isinstance(error, AuthenticationError | ValueError) else HubUnavailableError
        self._failure = kind(f"Expected events of the hub, got {type(error).__name__}: {str(error)[:300]}")
        self._arrived.set()


def _arrival(event: "EventData") -> Arrival | None:
    """The event, or None for one that no device sent, such as a message of IoT Hub itself."""
    device_id = event.system_properties.get(_DEVICE)
    if device_id is None or event.sequence_number is None or event.enqueued_time is None:
        return None
    name = device_id.decode() if isinstance(device_id, bytes) else str(device_id)
    body = b"".join(cast(Iterable[bytes], event.body))  # Of data sections, which is what a hub's events have.
    return Arrival(event.sequence_number, name, event.enqueued_time.timestamp(), body)
