"""Laws of the queue of messages: whatever happens, restarts included, none is lost, none comes back, order is kept."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.localhub import tables, topics
from cloud.localhub.devices import Identity
from cloud.localhub.errors import ServiceError
from cloud.localhub.limits import Limits
from cloud.localhub.links import Links
from cloud.localhub.mailbox import Mailbox
from cloud.localhub.messages import Message, Outcome
from cloud.localhub.store import Store
from cloud.localhub.twins import new_twin

_LIMITS = Limits(messages_pending_max=4, message_deliveries_max=2, message_lock_s=10.0, feedback_wait_s=0.0)
_LIFE_S = 60.0

_steps = st.lists(
    st.sampled_from(
        ["send", "send", "receive", "receive", "complete", "reject", "abandon", "wait", "expire", "purge", "restart"]
    ),
    max_size=25,
)


@dataclass
class _Expected:
    """What the rules say must be there: body to expiry, in order; the locked ones; the feedback, in order."""

    now: float = 1_000.0
    waiting: dict[bytes, float] = field(default_factory=dict)
    locks: dict[bytes, tuple[str, float]] = field(default_factory=dict)
    deliveries: dict[bytes, int] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)

    def alive(self) -> list[bytes]:
        return [body for body, expiry in self.waiting.items() if expiry > self.now]

    def end(self, body: bytes, outcome: Outcome) -> None:
        del self.waiting[body]
        self.locks.pop(body, None)
        self.outcomes.append(outcome.value)


class _World:
    """The mailbox on disk, beside what is expected of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.expected = _Expected()
        self.sent = 0

    async def start(self) -> None:
        self.store = Store(self.folder)
        clock = lambda: self.expected.now  # noqa: E731  # a clock is a function of nothing
        links = Links(methods_pending_max=1, clock=clock)
        self.mailbox = Mailbox(self.store, links, limits=_LIMITS, clock=clock, now=lambda: "now")
        self.expected.locks.clear()

    async def step(self, name: str) -> None:
        expected, mailbox = self.expected, self.mailbox
        match name:
            case "send":
                await self._send()
            case "receive":
                await self._receive()
            case "complete" | "reject":
                outcome = Outcome.SUCCESS if name == "complete" else Outcome.REJECTED
                await self._with_lock(lambda token: mailbox.settle("press-07", token, outcome), outcome)
            case "abandon":
                await self._with_lock(lambda token: mailbox.abandon("press-07", token), None)
            case "wait":
                expected.now += 7.0
            case "expire":
                expected.now += 40.0
                await mailbox.expire()
                for body in [body for body in expected.waiting if body not in expected.alive()]:
                    expected.end(body, Outcome.EXPIRED)
            case "purge":
                assert await mailbox.purge("press-07") == len(expected.waiting)
                for body in list(expected.waiting):
                    expected.end(body, Outcome.PURGED)
            case _:
                await self.store.close()
                await self.start()

    async def _send(self) -> None:
        self.sent += 1
        body, now = b"%d" % self.sent, self.expected.now
        message = Message(0, "press-07", {"iothub-ack": "full"}, body, now, now + _LIFE_S)
        if len(self.expected.alive()) < _LIMITS.messages_pending_max:
            await self.mailbox.send(message)
            self.expected.waiting[body] = now + _LIFE_S
            return
        with pytest.raises(ServiceError, match="in the queue of press-07"):
            await self.mailbox.send(message)

    async def _receive(self) -> None:
        expected = self.expected
        free = [body for body in expected.alive() if expected.locks.get(body, ("", 0.0))[1] <= expected.now]
        found = await self.mailbox.receive("press-07")
        assert (None if found is None else found[0].body) == (free[0] if free else None)
        if found is not None:
            message, token = found
            assert message.deliveries == expected.deliveries.get(message.body, 0)
            expected.locks[message.body] = (token, expected.now + _LIMITS.message_lock_s)

    async def _with_lock(self, act, outcome: Outcome | None) -> None:  # type: ignore[no-untyped-def]  # an operation by token
        expected = self.expected
        if not expected.locks:
            return
        body, (token, until) = next(iter(expected.locks.items()))
        if until <= expected.now:
            del expected.locks[body]
            with pytest.raises(ServiceError, match="lock"):
                await act(token)
            return
        await act(token)
        if outcome is not None:
            expected.end(body, outcome)
            return
        del expected.locks[body]
        expected.deliveries[body] = expected.deliveries.get(body, 0) + 1
        if expected.deliveries[body] == _LIMITS.message_deliveries_max:
            expected.end(body, Outcome.DELIVERY_COUNT_EXCEEDED)


@settings(max_examples=40, deadline=None)
@given(_steps)
def test_no_message_is_lost_or_comes_back_whatever_happens(steps: Sequence[str]) -> None:
    async def story() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = _World(Path(folder))
            await world.start()
            device = tables.Device(Identity("press-07", "1", "1"), new_twin("now"))
            await world.store.submit(lambda database: tables.put_device(database, device))
            for step in steps:
                await world.step(step)
                assert [message.body for message in await world.mailbox.pending("press-07")] == world.expected.alive()
            batch = await world.mailbox.feedback.receive()
            told = [] if batch is None else [record["statusCode"] for record in batch.records]
            assert told == world.expected.outcomes
            await world.store.close()

    asyncio.run(story())


_texts = st.text(st.characters(codec="utf-8"), max_size=12)


@given(st.dictionaries(_texts.filter(bool), st.none() | _texts, max_size=5))
def test_a_property_bag_comes_back_as_it_went_and_fits_a_topic(properties: dict[str, str | None]) -> None:
    bag = topics.format_properties(properties)
    assert topics.parse_properties(bag) == properties
    assert not set(bag) & set("/#+?\0")
