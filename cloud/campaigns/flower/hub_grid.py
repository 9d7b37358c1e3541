"""`HubGrid`: Flower's `Grid` over our fleet.

A thin adapter: it knows Flower's messages and a `Line` to the devices, which knows none of Flower. Message ids are work
ids.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from cloud.campaigns.errors import NodeIdCollisionError, UnknownNodeError
from cloud.campaigns.flower.runtime import SERVER_NODE_ID
from shared.flower_records import MalformedRecordsError, decode_records, encode_records
from shared.ids import DeviceId

FAILED = 2
"""Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION."""
_TTL_S = 60.0


@dataclass(frozen=True)
class Instruction:
    """One message of a ServerApp."""

    device: DeviceId
    message_type: str
    group: str
    records: bytes
    """`shared.flower_records`."""
    round: int = 0
    """As the message says: by convention in a config's `server-round`."""


@dataclass(frozen=True)
class Reply:
    """One device's answer: records, or an error in one sentence."""

    work_id: str
    instruction: Instruction
    """What it answers; its records may be left empty."""
    records: bytes = b""
    error: str = ""
    error_code: int = FAILED
    """Flower's."""


class Line(Protocol):
    """How messages reach devices, and answers the ServerApp."""

    def devices(self) -> Sequence[DeviceId]:
        """Whom one may ask now."""
        ...

    def send(self, instructions: Sequence[Instruction]) -> Sequence[str]:
        """Asks all of them, or none; the work ids, in the same order."""
        ...

    def receive(self, work_ids: Sequence[str]) -> Sequence[Reply]:
        """Replies there are for these; none is waited for."""
        ...

    def wait(self, work_ids: Sequence[str], *, timeout_s: float | None) -> Sequence[Reply]:
        """Replies to all of these, or those that came in time; in the order of the ids."""
        ...


def node_id_of(device_id: DeviceId) -> int:
    """The device's number in Flower: stable, 63 bits, above 1, from SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(device_id.encode()).digest()[:8], "big") >> 1 | 2


class HubGrid(Grid):
    """The fleet, as Flower's strategies and server apps see it; as safe for several threads as its line is.

    Args:
        run_id: The campaign's number in Flower.
        line: To the devices.
    """

    def __init__(self, *, run_id: int, line: Line) -> None:
        self._run = Run.create_empty(run_id)
        self._line = line
        self._devices: dict[int, DeviceId] = {}

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Numbers of the devices that can be asked now. Raises NodeIdCollisionError where two devices have one."""
        found = [(node_id_of(device), device) for device in self._line.devices()]
        for node_id, device in found:
            if (other := self._devices.setdefault(node_id, device)) != device:
                raise NodeIdCollisionError(
                    f"Expected a number of its own for each device, got one for {other} and {device}"
                )
        return [node_id for node_id, _ in found]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Asks all of them, or none. Raises UnknownNodeError."""
        encoded: dict[int, bytes] = {}
        """By the identity of the records, which are alive as long as the messages: most are one for all nodes."""
        sent = list(messages)
        for message in sent:
            if id(message.content) not in encoded:
                encoded[id(message.content)] = encode_records(message.content)
        return self._line.send([self._instruction(one, encoded[id(one.content)]) for one in sent]) if sent else []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies there are."""
        return [self._message(reply) for reply in self._line.receive(list(message_ids))]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Replies to all messages, in their order, or those that came within `timeout` seconds."""
        work_ids = list(self.push_messages(messages))
        replies = self._line.wait(work_ids, timeout_s=timeout) if work_ids else []
        return [self._message(reply) for reply in replies]

    def _instruction(self, message: Message, records: bytes) -> Instruction:
        metadata = message.metadata
        if (device := self._devices.get(metadata.dst_node_id)) is None:
            raise UnknownNodeError(f"Expected a node that get_node_ids named, got {metadata.dst_node_id}")
        return Instruction(device, metadata.message_type, metadata.group_id, records, round=_round_of(message))

    def _message(self, reply: Reply) -> Message:
        asked = reply.instruction
        metadata = Metadata(
            run_id=self._run.run_id,
            message_id=f"reply-{reply.work_id}",
            src_node_id=node_id_of(asked.device),
            dst_node_id=SERVER_NODE_ID,
            reply_to_message_id=reply.work_id,
            group_id=asked.group,
            created_at=0.0,
            ttl=_TTL_S,
            message_type=asked.message_type,
        )
        if reply.error:
            return make_message(metadata, error=Error(reply.error_code, reply.error))
        try:
            return make_message(metadata, content=decode_records(reply.records))
        except MalformedRecordsError as error:
            return make_message(metadata, error=Error(FAILED, error.message))


def _round_of(message: Message) -> int:
    """The app's round, as far as its message says: Flower's strategies put it into the configuration and the group."""
    found = [record.get("server-round") for record in message.content.config_records.values()]
    numbers = [number for number in found if isinstance(number, int)]
    group = message.metadata.group_id
    return max(0, numbers[0]) if numbers else int(group) if group.isdecimal() else 0
