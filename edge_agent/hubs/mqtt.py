"""The device's end of any MQTT broker: what `shared.hub.mqtt.topics` says, over one connection.

A broker keeps no documents and its acknowledgement is no promise: whether a killed broker still has a message is a
matter of its settings. So the coordinator answers each request, an event's too, once it is on disk; only that answer
counts here. The broker has nothing of value, and its session is a new one at each connect.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from edge_agent.hubs.commands import BUSY, COMMANDS_MAX, handled
from shared.hub.documents import over_the_wire
from shared.hub.mqtt.address import BrokerAddress
from shared.hub.mqtt.connection import Credential, MqttConnection, Session, lost
from shared.hub.mqtt.topics import Topics
from shared.hub.port import (
    DOCUMENT_BYTES_MAX,
    EVENT_BYTES_MAX,
    CommandHandler,
    Document,
    HubError,
    HubRefusedError,
    HubUnavailableError,
    Twin,
    Versioned,
)
from shared.hub.queues import until_closed
from shared.ids import DeviceId

_log = structlog.get_logger("hub")
_ANSWER_S = 30.0
_HELLO_S = 1.0
"""Before hello is said again, then twice as long each time: the coordinator may not have been there."""
_GOODBYE_S = 2.0
_PATCHES_MAX = 256


class MqttDevice:
    """One device's connection. Implements `shared.hub.port.DeviceHub`.

    Args:
        address: The broker and the fleet.
        device_id: Equal to the certificate's common name, which the broker takes as the user name.
        certificate_file: PEM; read again at each connect.
        key_file: PEM.
        ca_pem: PEM text of the CAs that may sign the broker's certificate.
        keep_alive_s: The broker notices a silent device after one and a half times this.
        connect_timeout_s: For the broker, and again for the coordinator behind it.
    """

    def __init__(
        self,
        *,
        address: BrokerAddress,
        device_id: DeviceId,
        certificate_file: Path,
        key_file: Path,
        ca_pem: str,
        keep_alive_s: int = 60,
        connect_timeout_s: float = 30.0,
    ) -> None:
        self._address = address
        self._device_id = device_id
        self._credential = Credential(certificate_file, key_file, ca_pem)
        self._keep_alive_s = keep_alive_s
        self._connect_timeout_s = connect_timeout_s
        self._handler: CommandHandler | None = None
        self._connection: _Connection | None = None

    async def connect(self) -> None:
        await self.close()
        connection = _Connection(Topics(self._address.fleet), self._device_id, self._handler)
        will = connection.goodbye_topic
        session = Session(self._device_id, will=will, keep_alive_s=self._keep_alive_s)
        connection.line = await MqttConnection.open(
            self._address, self._credential, session, connection.take, timeout_s=self._connect_timeout_s
        )
        try:
            await connection.begin(timeout_s=self._connect_timeout_s)
        except BaseException:
            await connection.line.close()
            raise
        self._connection = connection

    async def send_event(self, payload: bytes) -> None:
        if len(payload) > EVENT_BYTES_MAX:
            raise HubRefusedError(f"Expected an event of at most {EVENT_BYTES_MAX} bytes, got {len(payload)}")
        await self._live().ask("events", payload)

    async def get_twin(self) -> Twin:
        answer = await self._live().ask("get", b"")
        return Twin(desired=_versioned(answer["desired"]), reported=_versioned(answer["reported"]))

    async def desired_changes(self) -> AsyncIterator[Versioned]:
        connection = self._live()
        async for change in until_closed(connection.patches, connection.line.closed):
            yield change

    async def report(self, patch: Document) -> None:
        patch = over_the_wire(dict(patch), bytes_max=DOCUMENT_BYTES_MAX, name="the reported patch")
        await self._live().ask("report", _encoded(patch))

    def on_command(self, handler: CommandHandler) -> None:
        self._handler = handler

    async def wait_closed(self) -> None:
        if self._connection is not None:
            await self._connection.line.closed.wait()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.end()

    def _live(self) -> "_Connection":
        if self._connection is None or self._connection.line.closed.is_set():
            raise lost()
        return self._connection


class _Connection:
    """From its connect to its end; `line` is set before anything else is called."""

    line: MqttConnection

    def __init__(self, topics: Topics, device_id: DeviceId, handler: CommandHandler | None) -> None:
        self._topics = topics
        self._device_id = device_id
        self._handler = handler
        self._session = secrets.token_hex(8)
        self._numbers = count(1)
        self._answers: dict[str, asyncio.Future[tuple[int, Any]]] = {}
        self._commands: set[asyncio.Task[None]] = set()
        self.patches: asyncio.Queue[Versioned] = asyncio.Queue(_PATCHES_MAX)

    @property
    def goodbye_topic(self) -> str:
        return self._topics.up(self._device_id, "bye", self._session)

    async def begin(self, *, timeout_s: float) -> None:
        """Listens, and says hello until the coordinator has answered. Raises HubError."""
        await self.line.subscribe([self._topics.all_down(self._device_id)])
        payload, wait_s = _encoded({"session": self._session}), _HELLO_S
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self.ask("hello", payload)
                            return
                    wait_s *= 2
        except TimeoutError:
            raise HubUnavailableError(
                f"Expected the coordinator to answer behind the broker within {timeout_s:g} s, got nothing"
            ) from None

    async def ask(self, kind: str, payload: bytes) -> Any:
        """The coordinator's answer, which it gives once what was asked is on disk. Raises HubError."""
        rid = f"{self._session}-{next(self._numbers)}"
        answer: asyncio.Future[tuple[int, Any]] = asyncio.get_running_loop().create_future()
        self._answers[rid] = answer
        try:
            await self.line.publish(self._topics.up(self._device_id, kind, rid), payload, expires_s=_ANSWER_S)
            status, body = await self.line.until_closed(answer, timeout_s=_ANSWER_S)
        finally:
            del self._answers[rid]
        if status == 200:
            return body
        raise self._refusal(status, body)

    def take(self, line: MqttConnection, topic: str, payload: bytes, message_id: int) -> None:
        """A message of the broker's; what is not of the form is nobody's."""
        line.acknowledge(message_id)
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            match self._topics.parse_down(self._device_id, topic):
                case ("answers", rid, status):
                    self._take_answer(rid, int(status), json.loads(payload) if payload else None)
                case ("desired", version):
                    self._take_patch(Versioned(json.loads(payload), int(version)))
                case ("commands", caller, rid):
                    self._take_command(caller, rid, json.loads(payload))
                case ("end", _):
                    self.line.end()

    async def end(self) -> None:
        """Says goodbye, so that the coordinator knows at once."""
        for task in self._commands:
            task.cancel()
        with suppress(HubError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self.line.publish(self.goodbye_topic, b"")
        await self.line.close()

    def _take_answer(self, rid: str, status: int, body: Any) -> None:
        waiting = self._answers.get(rid)
        if waiting is not None and not waiting.done():
            waiting.set_result((status, body))

    def _take_patch(self, change: Versioned) -> None:
        if self.patches.full():
            # Losing one would leave a hole; after a new connection the agent reads the whole document.
            self.line.end()
            return
        self.patches.put_nowait(change)

    def _take_command(self, caller: str, rid: str, command: Any) -> None:
        if self._handler is not None:
            answering = self._reply(caller, rid, self._handler, str(command["name"]), command["payload"])
            task = asyncio.get_running_loop().create_task(answering)
            self._commands.add(task)
            task.add_done_callback(self._commands.discard)

    async def _reply(self, caller: str, rid: str, handler: CommandHandler, name: str, payload: object) -> None:
        reply = BUSY if len(self._commands) > COMMANDS_MAX else await handled(handler, name, payload)
        body = _encoded({"status": reply.status, "payload": reply.payload})
        try:
            self.line.post(self._topics.up(self._device_id, "replies", caller, rid), body)
        except HubUnavailableError:
            _log.warning("command_reply_lost", command=name)

    def _refusal(self, status: int, body: Any) -> HubError:
        reason = body.get("error", "no reason") if isinstance(body, dict) else "no reason"
        if status in (429, 503):
            return HubUnavailableError(f"Expected the coordinator to have room, got: {reason}")
        if status == 404:
            self.line.end()
            return HubRefusedError(
                f"Expected the coordinator to know {self._device_id}, got: {reason}",
                hint="Check that the device is enrolled and not revoked.",
            )
        return HubRefusedError(f"Expected a request that the coordinator takes, got: {reason}")


def _versioned(section: dict[str, Any]) -> Versioned:
    return Versioned(section["document"], int(section["version"]))


def _encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
