"""The queues of messages from the cloud: who has a message now, and how each of them ends.

A message is on disk from before its sender's answer until it has ended. Who has it (its lock) is only in memory: a hub
that restarts offers every message that has not ended again, so a device may see one twice and never misses one.

Over MQTT a message with QoS 1 ends with the device's PUBACK, and one with QoS 0 when it is sent. A device that stays
silent is sent it again when its lock has run out, with the same packet id; one that connects again gets it at once.
Over HTTPS a device completes, rejects or abandons a message by its lock token; a message that was abandoned too often
is dead.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from cloud.localhub import message_tables, topics
from cloud.localhub.codec import Publish
from cloud.localhub.errors import lock_lost
from cloud.localhub.limits import Limits
from cloud.localhub.links import Link, Links
from cloud.localhub.messages import LIFE_S_MAX, Message, Outcome, properties_for_device
from cloud.localhub.notices import Kind, Notices
from cloud.localhub.store import Store

_PACKET_IDS = 65_535


@dataclass(frozen=True)
class _Lock:
    """Until when, in the clock's time, nobody else gets the message. One that is over says that it went out before."""

    token: str
    until: float


class Mailbox:
    """All devices' queues over the store. `clock` gives seconds since the epoch, `now` the same in ISO 8601."""

    def __init__(
        self, store: Store, links: Links, *, limits: Limits, clock: Callable[[], float], now: Callable[[], str]
    ) -> None:
        self._store = store
        self._links = links
        self._limits = limits
        self._clock = clock
        self._now = now
        self._locks: dict[int, _Lock] = {}
        self.feedback = Notices(
            store,
            Kind.FEEDBACK,
            batch_max=limits.feedback_batch_max,
            wait_s=limits.feedback_wait_s,
            limits=limits,
            clock=clock,
        )
        self._deliveries: set[asyncio.Future[None]] = set()
        """Deliveries that a lock's end began; held here, because the loop holds its tasks only weakly."""

    # The senders' side

    async def send(self, message: Message) -> int:
        """Queues a message, and sends it at once to a device that listens. Raises ServiceError."""
        pending_max = self._limits.messages_pending_max
        sequence = await self._store.submit(
            lambda database: message_tables.enqueue(database, message, pending_max=pending_max)
        )
        if (link := self._links.get(message.device_id)) is not None:
            await self.deliver(link)
        return sequence

    async def purge(self, device_id: str) -> int:
        """Ends all that waits for the device; how many. Raises ServiceError."""
        now, stamp = self._clock(), self._now()
        ended = await self._store.submit(
            lambda database: message_tables.purge(database, device_id, now=now, stamp=stamp)
        )
        self._forget(ended)
        return len(ended)

    async def expire(self) -> int:
        """Ends what is over its time, and drops feedback that nobody fetched; how many messages."""
        now, stamp, total = self._clock(), self._now(), 0
        await self._store.submit(self.feedback.expire)
        while ended := await self._store.submit(lambda database: message_tables.expire(database, now=now, stamp=stamp)):
            self._forget(ended)
            total += len(ended)
        # What went with its device left a lock behind.
        self._locks = {sequence: lock for sequence, lock in self._locks.items() if lock.until > now - LIFE_S_MAX}
        return total

    # The device's side over MQTT

    async def deliver(self, link: Link) -> None:
        """Sends what waits for a device that listens, oldest first."""
        device_id = link.session.key
        qos = link.session.filters.get(topics.messages_filter(device_id))
        if qos is None:
            return
        for message in await self.pending(device_id):
            if self._links.get(device_id) is not link:
                return
            if not self._is_locked(message.sequence):
                self._hand_over(link, message, qos)

    def acknowledged(self, link: Link, packet_id: int) -> None:
        """Ends the message that the device acknowledges; an id that nothing waits for means nothing."""
        sequence = link.messages.pop(packet_id, None)
        if sequence is not None:
            self._end(link.session.key, sequence)

    def disconnected(self, link: Link) -> None:
        """Takes back what the device did not acknowledge."""
        for sequence in link.messages.values():
            self._release(sequence)
        link.messages.clear()

    def _hand_over(self, link: Link, message: Message, qos: int) -> None:
        topic = topics.message_topic(message.device_id, properties_for_device(message))
        if qos == 0:
            link.send(Publish(topic, message.body))
            self._lock(message.sequence)
            self._end(message.device_id, message.sequence)
            return
        packet_id = _packet_id(link, message.sequence)
        link.messages[packet_id] = message.sequence
        is_repeated = message.sequence in self._locks
        self._lock(message.sequence)
        link.send(Publish(topic, message.body, 1, packet_id, duplicate=is_repeated))
        asyncio.get_running_loop().call_later(self._limits.message_lock_s, self._lock_ran_out, link, packet_id)

    def _lock_ran_out(self, link: Link, packet_id: int) -> None:
        sequence = link.messages.get(packet_id)
        if sequence is not None and self._links.get(link.session.key) is link:
            self._release(sequence)
            task = asyncio.ensure_future(self.deliver(link))
            self._deliveries.add(task)
            task.add_done_callback(self._delivered)

    def _delivered(self, task: "asyncio.Future[None]") -> None:
        """Where the disk failed, the next delivery sends what waits."""
        self._deliveries.discard(task)
        if not task.cancelled():
            task.exception()

    def _end(self, device_id: str, sequence: int) -> None:
        """Ends a message as a success, in the order of the store; its device is not told and need not wait."""
        now, stamp = self._clock(), self._now()
        future = self._store.submit(
            lambda database: message_tables.settle(database, device_id, sequence, Outcome.SUCCESS, now=now, stamp=stamp)
        )
        future.add_done_callback(lambda done: self._ended(done, sequence))

    def _ended(self, done: "asyncio.Future[bool]", sequence: int) -> None:
        """Where the disk failed, the message is still there, and its lock runs out."""
        if not done.cancelled() and done.exception() is None:
            self._forget([sequence])

    # The device's side over HTTPS

    async def receive(self, device_id: str) -> tuple[Message, str] | None:
        """The oldest message that nobody has, locked, with its token; None where there is none."""
        for message in await self.pending(device_id):
            if not self._is_locked(message.sequence):
                return message, self._lock(message.sequence)
        return None

    async def settle(self, device_id: str, token: str, outcome: Outcome) -> None:
        """Ends the message that the token locks. Raises ServiceError where the lock is lost."""
        sequence, now, stamp = self._held(token), self._clock(), self._now()
        is_ended = await self._store.submit(
            lambda database: message_tables.settle(database, device_id, sequence, outcome, now=now, stamp=stamp)
        )
        if not is_ended:
            raise lock_lost("this message")
        self._forget([sequence])

    async def abandon(self, device_id: str, token: str) -> None:
        """Puts the message that the token locks back into the queue, or ends it. Raises ServiceError."""
        sequence, now, stamp = self._held(token), self._clock(), self._now()
        deliveries_max = self._limits.message_deliveries_max
        is_dead = await self._store.submit(
            lambda database: message_tables.give_back(
                database, device_id, sequence, deliveries_max=deliveries_max, now=now, stamp=stamp
            )
        )
        self._release(sequence)
        if is_dead:
            self._forget([sequence])
        elif (link := self._links.get(device_id)) is not None:
            await self.deliver(link)

    def _held(self, token: str) -> int:
        number = token.partition("-")[0]
        lock = self._locks.get(int(number)) if number.isascii() and number.isdigit() and len(number) < 19 else None
        if (
            lock is None
            or not secrets.compare_digest(lock.token.encode(), token.encode())
            or lock.until <= self._clock()
        ):
            raise lock_lost("this message")
        return int(number)

    # Locks

    async def pending(self, device_id: str) -> list[Message]:
        """What waits for the device, oldest first, locked or not."""
        now = self._clock()
        return await self._store.submit(lambda database: message_tables.pending(database, device_id, now=now))

    def _lock(self, sequence: int) -> str:
        token = f"{sequence}-{secrets.token_hex(16)}"
        self._locks[sequence] = _Lock(token, self._clock() + self._limits.message_lock_s)
        return token

    def _release(self, sequence: int) -> None:
        if sequence in self._locks:
            self._locks[sequence] = _Lock("", self._clock())

    def _is_locked(self, sequence: int) -> bool:
        lock = self._locks.get(sequence)
        return lock is not None and lock.until > self._clock()

    def _forget(self, sequences: list[int]) -> None:
        for sequence in sequences:
            self._locks.pop(sequence, None)


def _packet_id(link: Link, sequence: int) -> int:
    """The message's own id on every connection (MQTT 3.1.1, 4.4), or the next one where a far older message has it."""
    packet_id = sequence % _PACKET_IDS + 1
    while link.messages.get(packet_id, sequence) != sequence:
        packet_id = packet_id % _PACKET_IDS + 1
    return packet_id
