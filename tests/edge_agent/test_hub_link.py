"""The one connection to the hub: it comes back after every end, loses no event, and tells the core of each change."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from structlog.testing import capture_logs

from edge_agent.agent import CONNECT_BACKOFF
from edge_agent.hub_link import HubLink
from edge_agent.signals import CommandArrived, Connected, DesiredPatched, Disconnected, Signal, TwinRead
from edge_agent.telemetry.spool import Outbox
from shared.hub.memory import Faults, MemoryHub
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState
from shared.messages.desired import ReportedRelease
from shared.messages.events import EventKind

DEVICE = DeviceId("press-07")


class Line:
    """A link to a hub in memory, kept up as the agent keeps it up, without the waiting."""

    def __init__(self, folder: Path, faults: Faults | None = None) -> None:
        self.hub = MemoryHub(random.Random(3), faults)
        self.fleet = self.hub.fleet()
        self.outbox = Outbox.open(folder / "outbox.sqlite")
        self.signals: list[Signal] = []
        self.link = HubLink(self.hub.device(DEVICE), self.outbox, emit=self._take, clock=lambda: 1.0)

    async def _take(self, signal: Signal) -> None:
        self.signals.append(signal)

    def add(self, text: str) -> None:
        self.outbox.add(EventKind.SERVING_REPORT, text.encode())
        self.link.wake()

    async def keep_up(self) -> None:
        while True:
            await self.link.connect_once()
            await asyncio.sleep(0)

    def seen(self, kind: type[Signal]) -> list[Signal]:
        return [signal for signal in self.signals if isinstance(signal, kind)]

    async def events(self) -> list[bytes]:
        return [event.payload for event in await self.fleet.read_events(0, limit=10_000, wait_s=0)]


def run(folder: Path, story: Callable[[Line], Awaitable[None]], faults: Faults | None = None) -> None:
    async def tell() -> None:
        line = Line(folder, faults)
        task = asyncio.create_task(line.keep_up())
        try:
            await line.fleet.add_device(DEVICE)
            await story(line)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            line.outbox.close()

    asyncio.run(tell())


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.002)


def test_events_made_while_the_hub_is_away_arrive_in_order_when_it_is_back(tmp_path: Path) -> None:
    async def story(line: Line) -> None:
        await until(lambda: bool(line.seen(Connected)))
        for round_ in range(3):
            line.hub.restart()
            for number in range(40):
                line.add(f"{round_}-{number}")
            await until(lambda: len(line.outbox) == 0)
        await until(lambda: len(line.seen(Disconnected)) >= 3)
        got = list(dict.fromkeys(await line.events()))
        assert got == [f"{round_}-{number}".encode() for round_ in range(3) for number in range(40)]

    run(tmp_path, story)


def test_nothing_is_lost_on_a_hub_that_loses_and_repeats(tmp_path: Path) -> None:
    async def story(line: Line) -> None:
        for number in range(60):
            line.add(str(number))
        await until(lambda: len(line.outbox) == 0)
        assert {int(payload) for payload in await line.events()} == set(range(60))

    run(tmp_path, story, Faults(loss=0.2, duplication=0.2, reordering=0.1))


def test_each_connect_reads_the_whole_document_and_patches_follow(tmp_path: Path) -> None:
    async def story(line: Line) -> None:
        await until(lambda: bool(line.seen(Connected)))
        await line.fleet.set_desired(DEVICE, {"release": {"generation": 1}})
        await until(lambda: bool(line.seen(DesiredPatched)))
        line.hub.restart()
        await until(lambda: len(line.seen(Connected)) == 2)
        newest = line.seen(Connected)[-1]
        assert isinstance(newest, Connected)
        assert newest.desired == {"release": {"generation": 1}}
        await line.link.read_twin()
        assert isinstance(line.signals[-1], TwinRead)

    run(tmp_path, story)


def test_only_the_newest_report_and_heartbeat_wait_for_the_hub(tmp_path: Path) -> None:
    async def story(line: Line) -> None:
        for generation in (1, 2, 3):
            line.link.report(ReportedRelease(generation=generation, state=ReleaseState.PENDING))
            line.link.say_alive(b"beat %d" % generation)
        await until(lambda: bool(line.seen(Connected)))
        line.add("the last thing said")
        await until(lambda: len(line.outbox) == 0)
        reported = (await line.fleet.get_twin(DEVICE)).reported
        assert reported.document["release"]["generation"] == 3
        assert reported.version == 2  # written once
        assert await line.events() == [b"beat 3", b"the last thing said"]

    run(tmp_path, story)


def test_a_command_is_answered_at_once_and_told_to_the_core(tmp_path: Path) -> None:
    async def story(line: Line) -> None:
        await until(lambda: bool(line.seen(Connected)))
        reply = await line.fleet.command(DEVICE, "work", {}, timeout_s=5)
        assert reply.status == 200
        assert line.seen(CommandArrived) == [CommandArrived("work", {})]
        assert (await line.fleet.command(DEVICE, "format-disk", {}, timeout_s=5)).status == 404

    run(tmp_path, story)


def test_a_device_unknown_to_the_hub_is_told_as_a_connection_that_never_was(tmp_path: Path) -> None:
    async def tell() -> None:
        line = Line(tmp_path)
        await line.link.connect_once()
        line.outbox.close()
        assert line.signals[-1] == Disconnected(0.0)

    asyncio.run(tell())


def test_the_log_says_once_that_the_hub_is_gone_and_once_that_it_is_back(tmp_path: Path) -> None:
    async def story(line: Line) -> None:
        for connects in (1, 2):
            await until(lambda connects=connects: len(line.seen(Connected)) == connects)  # type: ignore[misc]  # bound now
            await until(lambda connects=connects: said(logs).count("hub_connected") == connects)  # type: ignore[misc]
            tries = len(line.seen(Disconnected))
            line.hub.set_away(is_away=True)
            await until(lambda tries=tries: len(line.seen(Disconnected)) > tries + 20)  # type: ignore[misc]
            line.hub.set_away(is_away=False)

    with capture_logs() as logs:
        run(tmp_path, story)
    assert said(logs)[:4] == ["hub_connected", "hub_connection_lost", "hub_connected", "hub_connection_lost"]


def said(logs: Sequence[Mapping[str, object]]) -> list[object]:
    return [line["event"] for line in logs]


def test_the_back_off_is_bounded_and_jittered() -> None:
    rng = random.Random(0)
    delays = [CONNECT_BACKOFF.delay_s(failures, rng) for failures in range(1000)]
    assert max(delays) <= CONNECT_BACKOFF.cap_s
    assert len(set(delays[20:])) > 900
