"""The cloud's end of any MQTT broker: the broker carries, the coordinator's database keeps.

A process of the coordinator that only calls devices (a campaign's doorbells) opens one without a desk: it answers no
device, and takes no share of what the coordinator answers.
"""

import asyncio
import json
import random
import secrets
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from cloud.hubs.mqtt.desk import Desk
from cloud.hubs.mqtt.line import Line
from cloud.hubs.mqtt.store import MqttStore, Request
from shared.hub.documents import over_the_wire
from shared.hub.mqtt.address import BrokerAddress
from shared.hub.mqtt.connection import Credential, MqttConnection, Session
from shared.hub.mqtt.topics import AGAIN, COORDINATOR, REMOVED, Topics
from shared.hub.port import (
    COMMAND_BYTES_MAX,
    DOCUMENT_BYTES_MAX,
    CommandReply,
    DeviceOfflineError,
    Document,
    Event,
    HubError,
    HubUnavailableError,
    Twin,
)
from shared.ids import DeviceId

SESSION_S = 60
"""How long the broker keeps what devices ask while the coordinator is started again; they ask anew after 30 s."""
_CONNECT_S = 10.0
_FIRST_LOOK_S = 5.0
_UNTOLD_MAX = 1000
_POLL_S = 1.0
"""How often a process without a desk looks for events."""


class MqttFleet:
    """Every device of one fleet on a broker. Implements `shared.hub.port.FleetHub`.

    It begins to connect, and to answer devices, when it is made: make it where an event loop runs.

    Args:
        address: The broker and the fleet.
        credential: A certificate with the common name `fleetlearn.coordinator`.
        store: The documents and the log.
        replica: Names this coordinator's session at the broker, for as long as it has its data; empty: it only calls
            devices, and answers none.
        group: Where several coordinators take turns (MQTT 5's shared subscription): its name, the same for all of them.
            A secret: Mosquitto's access lists let anybody join a group whose name he knows, and take what he may not
            read away from the others. Empty: this coordinator answers everything.
        rng: For the back-off.
    """

    def __init__(
        self,
        *,
        address: BrokerAddress,
        credential: Credential,
        store: MqttStore,
        replica: str,
        rng: random.Random,
        group: str = "",
    ) -> None:
        self._address = address
        self._credential = credential
        self._store = store
        self._topics = Topics(address.fleet)
        self._caller = secrets.token_hex(8)
        self._numbers = count(1)
        self._replies: dict[tuple[str, str], asyncio.Future[CommandReply]] = {}
        self._desk = Desk(store, self._topics) if replica else None
        self._line = Line(self._dial, self._tell_again, rng=rng)
        self._serving = asyncio.create_task(self._serve(self._desk)) if self._desk else None
        name = f"{COORDINATOR}.{address.fleet}.{replica or self._caller}"
        # The broker keeps nothing for one of a group: it would hand a dead one its turn.
        self._session = Session(name, expiry_s=SESSION_S if replica and not group else 0)
        self._group = group

    async def add_device(self, device_id: DeviceId) -> None:
        await asyncio.to_thread(self._store.add, device_id)

    async def remove_device(self, device_id: DeviceId) -> None:
        await asyncio.to_thread(self._store.remove, device_id)
        with suppress(HubError):  # a device that does not hear it learns it with its next request
            await (await self._line.live(wait_s=0)).publish(self._topics.down(device_id, "end", REMOVED), b"")

    async def get_twin(self, device_id: DeviceId) -> Twin:
        return await asyncio.to_thread(self._store.twin, device_id)

    async def set_desired(self, device_id: DeviceId, patch: Document) -> int:
        patch = over_the_wire(dict(patch), bytes_max=DOCUMENT_BYTES_MAX, name="the desired patch")
        version = await asyncio.to_thread(self._store.set_desired, device_id, patch)
        with suppress(HubError):  # it is on disk: told when the broker is back
            connection = await self._line.live(wait_s=0)
            await connection.publish(self._topics.down(device_id, "desired", str(version)), _encoded(patch))
            self._note_told(device_id, version, connection)
        return version

    async def command(self, device_id: DeviceId, name: str, payload: Any, *, timeout_s: float) -> CommandReply:
        payload = over_the_wire(payload, bytes_max=COMMAND_BYTES_MAX, name="the command's payload")
        if not await asyncio.to_thread(self._store.is_connected, device_id):
            raise DeviceOfflineError(f"Expected device {device_id} to be connected, got none")
        connection = await self._line.live(wait_s=min(timeout_s, _CONNECT_S))
        rid = str(next(self._numbers))
        reply: asyncio.Future[CommandReply] = asyncio.get_running_loop().create_future()
        self._replies[device_id, rid] = reply
        try:
            topic = self._topics.down(device_id, "commands", self._caller, rid)
            connection.post(topic, _encoded({"name": name, "payload": payload}))
            async with asyncio.timeout(timeout_s):
                return await connection.until_closed(reply, timeout_s=timeout_s + 1)
        except TimeoutError:
            raise DeviceOfflineError(
                f"Expected device {device_id} to answer {name!r} within {timeout_s:g} s, got nothing"
            ) from None
        finally:
            del self._replies[device_id, rid]

    async def read_events(self, after_offset: int, *, limit: int, wait_s: float) -> list[Event]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            if self._serving is not None and self._serving.done():
                self._serving.result()  # a mistake of ours ended it: the reader says so, loudly
            arrived = self._desk.arrived if self._desk else asyncio.Event()
            events = await asyncio.to_thread(self._store.events, after_offset, limit=limit)
            if events:
                return events
            await self._line.live(wait_s=max(deadline - loop.time(), _FIRST_LOOK_S))
            left_s = deadline - loop.time()
            if left_s <= 0:
                return []
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s if self._desk else min(left_s, _POLL_S)):
                    await arrived.wait()

    async def close(self) -> None:
        await self._line.close()
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

    async def _serve(self, desk: Desk) -> None:
        """Answers devices while the line is up and not before: whom it answered, it can also tell of changes."""
        while True:
            await self._line.up()
            await desk.serve_next()

    async def _dial(self) -> MqttConnection:
        """A connection that hears devices. Raises HubError."""
        connection = await MqttConnection.open(
            self._address, self._credential, self._session, self._take, timeout_s=_CONNECT_S
        )
        try:
            filters: Sequence[str] = [self._topics.replies(self._caller)]
            if self._desk is not None:
                filters = [*filters, *self._topics.requests(self._group)]
            await connection.subscribe(filters)
        except BaseException:
            connection.end()
            raise
        return connection

    async def _tell_again(self, connection: MqttConnection) -> None:
        """Devices that may have missed a patch connect again, and read their document.

        A patch that is written from now on is told at once; one from before is on disk, and found here.
        """
        if self._desk is None:
            return
        try:
            untold = await asyncio.to_thread(self._store.untold, limit=_UNTOLD_MAX)
        except SQLAlchemyError as error:
            raise HubUnavailableError("Expected the database to say who was not told, got no answer") from error
        for device_id in untold:
            connection.post(self._topics.down(device_id, "end", AGAIN), b"")

    def _note_told(self, device_id: DeviceId, version: int, connection: MqttConnection) -> None:
        if self._desk is not None:
            self._desk.note_told(Request(device_id, "told", str(version)), connection)

    def _take(self, connection: MqttConnection, topic: str, payload: bytes, message_id: int) -> None:
        sent = self._topics.parse_up(topic)
        if sent is not None and sent.path[0] == "replies":
            connection.acknowledge(message_id)
            self._take_reply(sent.device_id, sent.path, payload)
        elif self._desk is not None:
            self._desk.take(connection, topic, payload, message_id)

    def _take_reply(self, device_id: DeviceId, path: tuple[str, ...], payload: bytes) -> None:
        waiting = self._replies.get((device_id, path[-1]))
        if waiting is None or waiting.done():
            return
        try:
            reply = json.loads(payload)
            waiting.set_result(CommandReply(int(reply["status"]), reply["payload"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            waiting.set_result(CommandReply(502, {"error": "the device's reply is not one"}))


def _encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
