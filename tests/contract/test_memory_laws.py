"""Laws of the hub in memory under any faults: who follows the port's rules loses nothing and ends up with the truth."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.hub.documents import merge
from shared.hub.memory import Faults, MemoryHub
from shared.hub.port import CommandReply, DeviceOfflineError, HubUnavailableError
from shared.ids import DeviceId

_DEVICE = DeviceId("press-07")
_TRIES_MAX = 500
_T = TypeVar("_T")

chances = st.floats(0, 0.4)
any_faults = st.builds(
    Faults, loss=chances, duplication=chances, reordering=chances, delay_s_max=st.sampled_from([0.0, 0.002])
)
steps = st.lists(st.sampled_from(["event", "desired", "report", "command", "restart"]), min_size=1, max_size=15)
seeds = st.integers(0, 2**32)


async def persistently(call: Callable[[], Awaitable[_T]]) -> _T:
    for _ in range(_TRIES_MAX):
        try:
            return await call()
        except HubUnavailableError:
            continue
    raise AssertionError("never got through")


@dataclass
class Follower:
    """A device as the port wants it: reads its document after each connect, then takes newer patches in their order."""

    hub: MemoryHub
    document: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    reported: dict[str, Any] = field(default_factory=dict)
    called: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = self.hub.device(_DEVICE)
        self.device.on_command(self._answer)

    async def live(self) -> None:
        """Connects, follows until the end of the connection, and connects again."""
        while True:
            try:
                await self.device.connect()
                await self._read()
                async for change in self.device.desired_changes():
                    if change.version == self.version + 1:
                        self.document, self.version = merge(self.document, change.document), change.version
                    elif change.version > self.version:
                        await self._read()
            except HubUnavailableError:
                pass
            await asyncio.sleep(0)

    async def send(self, payload: bytes) -> None:
        """Until it is acknowledged, through as many connections as that takes."""
        for _ in range(_TRIES_MAX * 10):
            try:
                await self.device.send_event(payload)
                return
            except HubUnavailableError:
                await asyncio.sleep(0)
        raise AssertionError("never got through")

    async def report(self, patch: dict[str, Any]) -> None:
        for _ in range(_TRIES_MAX * 10):
            try:
                await self.device.report(patch)
                return
            except HubUnavailableError:
                await asyncio.sleep(0)
        raise AssertionError("never got through")

    async def _read(self) -> None:
        desired = (await self.device.get_twin()).desired
        self.document, self.version = dict(desired.document), desired.version

    async def _answer(self, name: str, payload: Any) -> CommandReply:
        self.called.append(payload)
        return CommandReply(200, payload)


async def play(hub: MemoryHub, script: list[str]) -> tuple[Follower, dict[str, Any], list[bytes]]:
    """Plays the script to its end; the device, what the cloud wanted, and what was acknowledged."""
    fleet, follower = hub.fleet(), Follower(hub)
    await persistently(lambda: fleet.add_device(_DEVICE))
    living = asyncio.create_task(follower.live())
    wanted: dict[str, Any] = {}
    acknowledged: list[bytes] = []
    try:
        for number, step in enumerate(script):
            patch: dict[str, Any] = {f"key{number % 3}": number, f"key{(number + 1) % 3}": None}
            match step:
                case "event":
                    await follower.send(b"%d" % number)
                    acknowledged.append(b"%d" % number)
                case "desired":
                    await persistently(lambda patch=patch: fleet.set_desired(_DEVICE, patch))  # type: ignore[misc]  # bound now
                    wanted = merge(wanted, patch)
                case "report":
                    await follower.report(patch)
                    follower.reported = merge(follower.reported, patch)
                case "command":
                    await _call(hub, number, follower)
                case "restart":
                    hub.restart()
        async with asyncio.timeout(20):
            while follower.document != wanted:  # noqa: ASYNC110  # what is waited for has no event of its own
                await asyncio.sleep(0.001)
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
    return follower, wanted, acknowledged


async def _call(hub: MemoryHub, number: int, follower: Follower) -> None:
    """A command fails, or it was carried out; there is no third."""
    try:
        reply = await hub.fleet().command(_DEVICE, "work", number, timeout_s=5)
    except (HubUnavailableError, DeviceOfflineError):
        return
    assert reply == CommandReply(200, number)
    assert number in follower.called


@settings(max_examples=40, deadline=None)
@given(faults=any_faults, seed=seeds, script=steps)
def test_whatever_fails_nothing_acknowledged_is_lost_and_all_agree_in_the_end(
    faults: Faults, seed: int, script: list[str]
) -> None:
    async def story() -> None:
        hub = MemoryHub(random.Random(seed), faults)
        follower, wanted, acknowledged = await play(hub, script)
        twin = await persistently(lambda: hub.fleet().get_twin(_DEVICE))
        events = await persistently(lambda: hub.fleet().read_events(0, limit=10_000, wait_s=0))
        assert twin.desired.document == wanted == follower.document
        assert twin.reported.document == follower.reported
        assert {event.payload for event in events} == set(acknowledged)
        assert [event.offset for event in events] == list(range(1, len(events) + 1))

    asyncio.run(story())


@settings(max_examples=20, deadline=None)
@given(seed=seeds, script=steps)
def test_without_faults_everything_comes_once_and_in_order(seed: int, script: list[str]) -> None:
    async def story() -> None:
        hub = MemoryHub(random.Random(seed))
        follower, _, acknowledged = await play(hub, [step for step in script if step != "restart"])
        events = await hub.fleet().read_events(0, limit=10_000, wait_s=0)
        assert [event.payload for event in events] == acknowledged
        assert len(follower.called) == len(set(follower.called))

    asyncio.run(story())


def test_a_patch_that_is_held_back_comes_although_no_other_follows() -> None:
    async def story() -> None:
        hub = MemoryHub(random.Random(1), Faults(reordering=1.0))
        await hub.fleet().add_device(_DEVICE)
        device = hub.device(_DEVICE)
        await device.connect()
        version = await hub.fleet().set_desired(_DEVICE, {"a": 1})
        async with asyncio.timeout(5):
            assert (await anext(device.desired_changes())).version == version

    asyncio.run(story())
