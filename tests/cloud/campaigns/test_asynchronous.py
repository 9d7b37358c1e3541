"""FedBuff campaigns: a round closes when its buffer is full, and whoever still trains counts in a later one."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlmodel import select

from cloud.campaigns.models import RoundRow
from cloud.campaigns.service import cancel_campaign
from cloud.work.models import WorkItem
from shared.ids import DeviceId
from shared.messages.events import WorkResult
from shared.messages.work import Work
from shared.tensors import Array, Tensors
from tests.cloud.campaigns.world import KilledError, World, stays_silent, trains, update_of

ASYNCHRONOUS: dict[str, Any] = {"strategy": "fedbuff", "strategy_settings": {"buffer": 2, "staleness_max": 1}}


def trains_a_round_late(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    """Still trains while its round is open."""
    return trains(world, device_id, work) if world.campaign().rounds_done >= work.round else None


def statuses(world: World) -> list[dict[str, str]]:
    return [{one.device_id: one.status for one in row.devices} for row in world.campaign().history]


def rows(world: World) -> list[RoundRow]:
    with world.sessions() as session, session.begin():
        return list(session.exec(select(RoundRow).order_by(RoundRow.round)).all())  # type: ignore[arg-type]


def delta(device: str, number: int, model: Tensors) -> dict[str, Array]:
    work = Work.model_validate(
        {"work_id": "w", "kind": "train", "campaign_id": "c", "round": number, "task": "digits", "task_version": "1"}
        | {"model": {"digest": "0" * 64, "size_bytes": 1}, "deadline_s": 1}
    )
    trained = update_of(DeviceId(device), work, model)
    return {name: np.asarray(trained[name], np.float64) - np.asarray(model[name], np.float64) for name in model}


def plus(model: Tensors, weighted: list[tuple[float, dict[str, Array]]], total: float) -> Tensors:
    moved: Tensors = {}
    for name, value in model.items():
        change = sum(weight * np.asarray(one[name], np.float64) for weight, one in weighted) / total
        moved[name] = (np.asarray(value, np.float64) + change).astype(np.float32)
    return moved


def test_a_slow_device_is_not_waited_for_and_counts_in_the_next_round_for_less(world: World) -> None:
    for name in ("a", "b"):
        world.add(name, trains)
    world.add("c", trains_a_round_late)
    world.ask(rounds=2, **ASYNCHRONOUS)

    result = world.run()

    assert statuses(world) == [{"a": "done", "b": "done", "c": "late"}, {"a": "done", "b": "done", "c": "done"}]
    first, second = rows(world)
    assert second.work_ids["c"] == first.work_ids["c"]
    assert second.work_ids["a"] != first.work_ids["a"]
    assert second.excluded == {}
    (late,) = [one for one in world.campaign().history[0].devices if one.device_id == "c"]
    assert late.reason == "Answered after round 1, and counts in round 2, for less"
    # Examples are 10 + the round's number; c trained the first round's model, and is one round stale.
    one = plus(world.model, [(11, delta(name, 1, world.model)) for name in ("a", "b")], 22)
    fresh = [(12.0, delta(name, 2, one)) for name in ("a", "b")]
    two = plus(one, [*fresh, (11 * 2**-0.5, delta("c", 1, world.model))], 35)
    for name, value in world.weights(str(result["model_version_id"])).items():
        np.testing.assert_allclose(np.asarray(value, np.float64), np.asarray(two[name], np.float64), atol=1e-6)


def test_work_that_is_too_stale_is_taken_back_and_its_device_asked_anew(world: World) -> None:
    for name in ("a", "b"):
        world.add(name, trains)
    world.add("c", stays_silent)
    world.ask(rounds=3, **ASYNCHRONOUS)

    world.run()

    first, second, third = rows(world)
    assert first.work_ids["c"] == second.work_ids["c"] != third.work_ids["c"]
    assert [found["c"] for found in statuses(world)] == ["silent"] * 3
    with world.sessions() as session, session.begin():
        states = {item.work_id: item.state for item in session.exec(select(WorkItem)) if item.device_id == "c"}
    assert states == {first.work_ids["c"]: "expired", third.work_ids["c"]: "expired"}


def test_cancelling_takes_back_what_is_still_trained(world: World) -> None:
    for name in ("a", "b"):
        world.add(name, trains)
    world.add("c", stays_silent)
    world.ask(rounds=50, **ASYNCHRONOUS)

    def cancel(world: World) -> None:
        if world.campaign().rounds_done == 1:
            with world.sessions() as session, session.begin():
                cancel_campaign(session, "campaign-1", now=world.clock)
            raise KilledError

    world.on_sleep = cancel
    with pytest.raises(KilledError):
        world.run()

    with world.sessions() as session, session.begin():
        assert "pending" not in {item.state for item in session.exec(select(WorkItem))}


def test_a_kill_after_any_write_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    write, was_killed = 0, True
    while was_killed:
        write += 2
        (folder := tmp_path / str(write)).mkdir()
        world = World(folder, kill_after_writes=write)
        for name in ("a", "b"):
            world.add(name, trains)
        world.add("c", trains_a_round_late)
        world.ask(rounds=3, **ASYNCHRONOUS)
        try:
            world.run()
            was_killed = False
        except KilledError:
            world.let_devices_work()
            world.run()
        counted = Counter(
            row.work_ids[outcome["device_id"]]
            for row in rows(world)
            for outcome in row.outcomes
            if outcome["status"] == "done"
        )
        assert [row.state for row in rows(world)] == ["done"] * 3, f"kill after write {write}"
        assert set(counted.values()) == {1}, f"kill after write {write}"
        world.engine.dispose()
    assert write > 6
