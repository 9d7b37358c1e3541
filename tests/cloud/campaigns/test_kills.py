"""Kill the campaign's process after each of its durable writes, start it again, and compare with one left alone."""

from pathlib import Path

import pytest
from sqlmodel import select

from cloud.work.models import WorkItem
from shared.ids import DeviceId
from shared.messages.events import WorkResult
from shared.messages.work import Work
from tests.cloud.campaigns.world import KilledError, World, refuses, stays_silent, trains

RUNS_MAX = 3


def _fleet(world: World, strategy: str) -> None:
    world.add("a", trains)
    world.add("b", _slow)
    world.add("c", refuses)
    world.add("d", stays_silent)
    world.ask(strategy=strategy, round_timeout_s=2)


def _slow(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    """Answers when the coordinator asks the second time, so that a kill can fall between two answers."""
    return trains(world, device_id, work) if world.clock % 1 > 0.5 else None


def _run_to_the_end(world: World) -> tuple[str, int]:
    """The digest of the final weights, and how often the process had to be started."""
    for start in range(1, RUNS_MAX + 1):
        try:
            result = world.run()
        except KilledError:
            world.let_devices_work()  # the rest of the world goes on
            continue
        return _digest(world, str(result["model_version_id"])), start
    raise AssertionError(f"Expected an end within {RUNS_MAX} starts")


def _digest(world: World, version_id: str) -> str:
    from cloud.registry.service import get_version

    with world.sessions() as session, session.begin():
        return get_version(session, version_id).weights.digest


def _work_ids(world: World) -> set[str]:
    with world.sessions() as session, session.begin():
        return set(session.exec(select(WorkItem.work_id)))


# What a strategy keeps of its own matters from the second round on: those are killed in that half only.
@pytest.mark.parametrize(("strategy", "first_half_too"), [("fedavg", True), ("fedadam", False), ("scaffold", False)])
def test_a_kill_after_any_write_resumes_in_the_same_round_and_ends_with_the_same_weights(
    tmp_path: Path, strategy: str, first_half_too: bool
) -> None:
    undisturbed = World(_folder(tmp_path, "undisturbed"))
    _fleet(undisturbed, strategy)
    expected, _ = _run_to_the_end(undisturbed)
    assert undisturbed.writes >= 8

    first = 1 if first_half_too else undisturbed.writes // 2
    for write in range(first, undisturbed.writes + 1):
        world = World(_folder(tmp_path, f"kill-{write}"), kill_after_writes=write)
        _fleet(world, strategy)

        found, starts = _run_to_the_end(world)

        assert starts == 2
        assert found == expected, f"kill after write {write}"
        assert _work_ids(world) == _work_ids(undisturbed)
        assert [(r.round, r.attempt, r.state) for r in world.campaign().history] == [(1, 1, "done"), (2, 1, "done")]
        world.engine.dispose()


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_running_a_finished_campaign_again_registers_nothing_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    _fleet(world, "fedavg")

    first, second = world.run(), world.run()

    assert first == second


def test_time_without_a_coordinator_does_not_count_against_the_devices(tmp_path: Path) -> None:
    world = World(tmp_path, kill_after_writes=2)
    world.add("a", stays_silent)
    world.add("b", stays_silent)
    world.ask(rounds=1)
    with pytest.raises(KilledError):
        world.run()
    world.clock += 3_600
    for name in list(world.devices):
        world.devices[name] = trains

    world.run()

    assert [r.state for r in world.campaign().history] == ["done"]
