"""`HubGrid`: Flower's `Grid` over durable work rows, doorbells and uploads.

A message pushed here is a row that survives any crash, a reply pulled here was on disk before. Message ids are work
ids, and the same message for the same round has the same id, so pushing twice does no harm. What moves the rows and
the bytes is the caller's: `post` and `collect`.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from cloud.campaigns.errors import NodeIdCollisionError
from cloud.campaigns.flower.records import Instruction, NodeReply, instruction_of, message_of
from shared.ids import DeviceId

Post = Callable[[Sequence[tuple[DeviceId, Instruction]]], Sequence[str]]
"""Stores work for devices, all or nothing, and returns the work ids, in the same order."""
Collect = Callable[[Sequence[str]], Sequence[NodeReply]]
"""Replies there are for these work ids; those without one are left out."""

_POLL_S = 0.05


def node_id_of(device_id: DeviceId) -> int:
    """The device's number in Flower: stable, 63 bits, above 1, from SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(device_id.encode()).digest()[:8], "big") >> 1 | 2


class HubGrid(Grid):
    """The devices of one round, as Flower's strategies and server apps see them.

    Args:
        run_id: The campaign's number in Flower.
        devices: Who can be asked now.
        post: Stores work.
        collect: Finds replies.
        now: Seconds since the epoch.
        sleep: Waits some seconds; only `send_and_receive` waits.

    Raises:
        NodeIdCollisionError: Two devices have one number.
    """

    def __init__(
        self,
        *,
        run_id: int,
        devices: Iterable[DeviceId],
        post: Post,
        collect: Collect,
        now: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run = Run.create_empty(run_id)
        self._devices = _by_node_id(devices)
        self._post = post
        self._collect = collect
        self._now = now
        self._sleep = sleep

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
        return list(self._devices)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Stores all messages as work, or none. Raises UnsupportedRecordError."""
        instructions = [instruction_of(message) for message in messages]
        return self._post([(self._devices[one.node_id], one) for one in instructions])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies there are, in the order of the ids; pulling again gives them again."""
        wanted = list(message_ids)
        found = {reply.work_id: reply for reply in self._collect(wanted)}
        replies = [found[work_id] for work_id in wanted if work_id in found]
        return [message_of(reply, run_id=self._run.run_id, now=self._now()) for reply in replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pushes, then waits for all replies or `timeout` seconds; without one, for an hour at most."""
        waiting = list(self.push_messages(messages))
        deadline = self._now() + (3600.0 if timeout is None else timeout)
        replies: list[Message] = []
        while waiting:
            found = list(self.pull_messages(waiting))
            answered = {message.metadata.reply_to_message_id for message in found}
            waiting = [work_id for work_id in waiting if work_id not in answered]
            replies += found
            if self._now() >= deadline:
                break
            self._sleep(_POLL_S)
        return replies


def _by_node_id(devices: Iterable[DeviceId]) -> dict[int, DeviceId]:
    found: dict[int, DeviceId] = {}
    for device_id in sorted(set(devices)):
        other = found.setdefault(node_id_of(device_id), device_id)
        if other != device_id:
            raise NodeIdCollisionError(
                f"Expected a number of its own for each device, got one for {other} and {device_id}"
            )
    return found
