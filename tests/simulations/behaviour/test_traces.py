"""A real coordinator's campaign becomes a file, and the file a fleet that behaves as the real one did."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from cloud.campaigns.flower.runtime import prepare_flower
from cloud.campaigns.trace import joined
from cloud.monitoring.service import record_report
from fleet.__main__ import campaigns
from fleet.commands.common import Surroundings
from shared.exit_codes import ExitCode
from shared.ids import DeviceId
from shared.messages.events import Envelope, ServingReport, WorkResult
from shared.messages.work import Work
from simulations.behaviour.behave import behave
from simulations.behaviour.course import Load
from simulations.behaviour.errors import TraceError
from simulations.behaviour.settings import BehaviourSettings
from simulations.behaviour.trace_file import parse_trace, read_trace
from simulations.behaviour.traced import TracedBehaviour
from simulations.partitions.settings import Drawn
from simulations.populations.batches import Shuffled
from simulations.populations.drawn import DrawnPopulation
from simulations.virtual_time.synchronous import Patience, SynchronousRounds
from tests.support.coordinator import open_coordinator

prepare_flower("tests")
from tests.cloud.campaigns.world import World, fails, stays_silent, trains  # noqa: E402  # Flower is prepared first


def takes(seconds: float) -> Callable[[World, DeviceId, Work], WorkResult | None]:
    """A device that trains for so long."""
    since: dict[str, float] = {}

    def behaviour(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        started = since.setdefault(work.work_id, world.clock)
        if world.clock < started + seconds:
            return None
        result = trains(world, device_id, work)
        return None if result is None else result.model_copy(update={"duration_s": seconds})

    return behaviour


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that an operator's command wrote, after a campaign of three rounds with five devices."""
    folder = tmp_path_factory.mktemp("fleet")
    coordinator = open_coordinator(folder / "coordinator", heartbeat_s=20)
    world = World(folder / "world", coordinator.services.settings.database)
    world.add("fast", takes(1))
    world.add("failing", fails)
    world.add("silent", stays_silent)
    world.add("slow", takes(6))
    world.ask(rounds=3, quorum=2)
    world.run()
    with world.sessions() as session, session.begin():
        for minute in range(5):
            envelope = Envelope(kind="serving_report", id=f"r{minute}", device_id="slow", boot_id="b", sequence=minute)
            report = ServingReport(release_id="r", window_s=60, requests=0, examples=0, errors=0)
            record_report(session, DeviceId("slow"), envelope, report, received_at=2000.0 + 60 * minute)
    path = folder / "fleet.csv"
    with coordinator.client() as client:

        def carry(request: httpx.Request) -> httpx.Response:
            answer = client.request(request.method, str(request.url), headers=coordinator.operator)
            return httpx.Response(answer.status_code, content=answer.content)

        environ = {"FLEETLEARN_URL": "https://coordinator.test", "FLEETLEARN_TOKEN": "t"}
        surroundings = Surroundings(environ=environ, transport=httpx.MockTransport(carry))
        assert campaigns(["trace", str(path)], surroundings) == ExitCode.OK
    yield path
    world.engine.dispose()
    coordinator.engine.dispose()


def test_a_campaign_is_written_as_what_each_device_did(recorded: Path) -> None:
    rows = list(csv.DictReader(recorded.read_text().splitlines()))
    works = [row for row in rows if row["kind"] == "work"]
    assert {row["client"] for row in works} == {"fast", "failing", "silent", "slow"}
    fast = [row for row in works if row["client"] == "fast"]
    assert [row["outcome"] for row in fast] == ["done"] * 3
    assert all(float(row["train_s"]) == 1 and int(row["bytes_down"]) > 0 < int(row["bytes_up"]) for row in fast)
    assert all(row["end_s"] == "" for row in works if row["client"] == "silent")
    online = [row for row in rows if row["kind"] == "online" and row["client"] == "slow"]
    # Reports a minute apart are one stay: silence of three heartbeats ends one.
    assert max(float(row["end_s"]) - float(row["start_s"]) for row in online) >= 240


def test_a_replayed_client_takes_as_long_as_its_device(recorded: Path) -> None:
    fleet = read_trace(recorded)
    assert fleet.devices == ("failing", "fast", "silent", "slow")
    behaviour = TracedBehaviour(fleet, waits=True, seed=1)
    clients, starts = np.repeat(np.arange(4), 25), np.tile(np.arange(25), 4)
    works = fleet.works
    moved, done = works.bytes_moved[works.device == 1][0], works.device == 1
    examples = np.full(100, works.examples[done].mean())
    seconds = behaviour.durations(clients, starts, Load(examples, moved / 2, moved / 2)).reshape(4, 25)
    assert np.isinf(seconds[[0, 2]]).all()
    recorded_s = works.end_s - works.start_s
    for device in (1, 3):
        own = recorded_s[works.device == device]
        assert (seconds[device] >= own.min() - 1).all()
        assert (seconds[device] <= own.max() + 1).all()
    assert (seconds[3] > seconds[1].max()).all()
    twice = behaviour.durations(clients, starts, Load(2 * examples, moved / 2, moved / 2)).reshape(4, 25)
    assert (twice[3] - seconds[3] > 4).all()


def test_simulated_rounds_replay_the_recorded_fleet(recorded: Path) -> None:
    """Ten thousand clients in the image of four devices: half of them never answer."""
    behaviour = behave(BehaviourSettings(trace=recorded), seed=1)
    population = DrawnPopulation(Drawn(examples=11), np.arange(500) % 10, clients=10_000, seed=1)
    patience = Patience(asked=200, quorum=20, deadline_s=30)
    rounds = SynchronousRounds(population, behaviour, patience, Shuffled(batch=5), 3e4, 3e4, seed=2)
    part = rounds.take_part(1, clock_s=0.0)
    assert set(part.clients % 4) <= {1, 3}
    assert part.lost > 0.2 * part.asked


TABLE = pd.DataFrame(
    {
        "client": ["a", "a", "b", "a"],
        "kind": ["online", "online", "online", "work"],
        "start_s": [0, 50, 10, 20],
        "end_s": [30, 99, 99, 25],
        "train_s": [0, 0, 0, 3],
        "examples": [0, 0, 0, 6],
    }
)


def test_devices_come_and_go_as_recorded_and_the_trace_starts_again() -> None:
    fleet = parse_trace(TABLE, name="t")
    behaviour = TracedBehaviour(fleet, waits=True, seed=1)
    assert fleet.length_s == 100
    clients = np.array([0, 1, 0, 1, 2])
    for turn in (0, 1, 7):
        at_s = np.array([40.0, 40.0, 20.0, 5.0, 40.0]) + 100 * turn
        assert behaviour.is_there(clients, at_s).tolist() == [False, True, True, False, False]
    handed_in = behaviour.handed_in(np.array([0, 1, 0]), np.zeros(3), np.array([40.0, 40.0, np.inf]))
    assert handed_in.tolist() == [50, 40, np.inf]
    lost = TracedBehaviour(fleet, waits=False, seed=1).handed_in(np.array([0, 1]), np.full(2, 20.0), np.full(2, 60.0))
    assert lost.tolist() == [np.inf, 60]


def test_a_device_without_work_of_its_own_repeats_anothers() -> None:
    behaviour = TracedBehaviour(parse_trace(TABLE, name="t"), waits=True, seed=1)
    seconds = behaviour.durations(np.array([0, 1]), np.zeros(2, int), Load(np.array([12.0, 6.0]), 1, 1))
    assert seconds.tolist() == [2 * 3 + 2, 3 + 2]


@pytest.mark.parametrize(
    ("column", "row", "value", "said"),
    [
        ("kind", 0, "asleep", "got 'asleep'"),
        ("start_s", 1, -1, "'start_s' of row 1"),
        ("end_s", 3, 2, "Expected end_s after start_s in row 3"),
        ("examples", 3, np.nan, "'examples' of row 3"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_its_row(column: str, row: int, value: object, said: str) -> None:
    table = TABLE.astype({"start_s": float, "end_s": float, "examples": float})
    table.loc[row, column] = value
    with pytest.raises(TraceError, match=said):
        parse_trace(table, name="t")


def test_a_trace_in_which_nobody_did_anything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="work that was done"):
        TracedBehaviour(parse_trace(TABLE[:3], name="t"), waits=True, seed=1)
    with pytest.raises(TraceError, match="column 'kind'"):
        parse_trace(TABLE.drop(columns="kind"), name="t")
    with pytest.raises(TraceError, match="Expected a trace at"):
        read_trace(tmp_path / "nothing.csv")


def test_stays_without_a_long_silence_between_them_are_one() -> None:
    stays = [(5.0, 5.0), (1.0, 4.0), (2.0, 3.0), (30.0, 31.0), (40.0, 44.0), (90.0, 90.0)]
    assert joined(stays, gap_s=10) == [(1, 5), (30, 44), (90, 90)]
    assert joined([], gap_s=10) == []
