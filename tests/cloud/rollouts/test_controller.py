"""The controller, with a database on disk and a hub in memory: waves, halts, stops, and kills at every point."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from cloud.devices import service as devices
from cloud.rollouts import service
from cloud.rollouts.errors import (
    IllegalRolloutTransitionError,
    NothingToMoveError,
    RolloutConflictError,
    StalePlanError,
    UnknownRolloutError,
)
from shared.api.rollouts import Rollout
from shared.hub.port import UnknownDeviceError
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState, RolloutState
from tests.cloud.rollouts.world import KilledError, World, open_world

ENOUGH_S = 40


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def canary_of(rollout: Rollout) -> DeviceId:
    return DeviceId(rollout.waves[0].devices[0].device_id)


def states(rollout: Rollout) -> dict[str, str]:
    return {device.device_id: device.state for wave in rollout.waves for device in wave.devices}


def test_a_plan_moves_nothing_until_it_is_started(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        planned = world.plan()
        await world.seconds(3)
        assert planned.state is RolloutState.PLANNED
        assert planned.generation == 1
        assert [len(wave.devices) for wave in planned.waves] == [1, 4]
        assert world.hub.told == []

    run(story())


def test_two_waves_move_one_after_the_other_and_the_rollout_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        rollout = world.started()
        canary = canary_of(rollout)
        seen = []
        for _ in range(ENOUGH_S):
            await world.second()
            shown = world.show(rollout.rollout_id)
            seen.append((shown.waves[0].state, shown.waves[1].state))
            if len(world.hub.told) > 1:
                assert world.devices[canary].active == "r-2"
        assert [each for number, each in enumerate(seen) if number == 0 or seen[number - 1] != each] == [
            ("moving", "waiting"),
            ("soaking", "waiting"),
            ("healthy", "moving"),
            ("healthy", "soaking"),
            ("healthy", "healthy"),
        ]
        assert shown.state is RolloutState.DONE
        assert shown.finished_at is not None
        assert {device.active for device in world.devices.values()} == {"r-2"}
        assert world.hub.told[0] == (canary, 1, "r-2")
        assert len(world.hub.told) == 5

    run(story())


def test_a_canary_that_fails_halts_and_the_second_wave_is_never_asked(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        rollout = world.started()
        canary = canary_of(rollout)
        world.devices[canary].fails[1] = "Expected the recorded outputs, got a difference of 0.7"
        await world.seconds(ENOUGH_S)
        shown = world.show(rollout.rollout_id)
        assert shown.state is RolloutState.HALTED
        assert shown.reason.endswith(f"{canary}: Expected the recorded outputs, got a difference of 0.7")
        assert states(shown)[canary] == "failed"
        assert world.hub.told == [(canary, 1, "r-2")]
        assert [device.active for device in world.devices.values()] == [None] * 5

    run(story())


def test_resume_asks_the_failed_canary_again_and_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        rollout = world.started()
        canary = canary_of(rollout)
        world.devices[canary].fails[1] = "No space left."
        await world.seconds(10)
        world.resume(rollout.rollout_id)
        await world.seconds(ENOUGH_S)
        shown = world.show(rollout.rollout_id)
        assert shown.state is RolloutState.DONE
        assert shown.generation == 2
        assert world.hub.told[:2] == [(canary, 1, "r-2"), (canary, 2, "r-2")]
        assert len(world.hub.told) == 6

    run(story())


def test_after_a_stop_no_further_device_is_asked_and_those_asked_are_listed(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        rollout = world.started()
        await world.second()
        stopped = world.stop(rollout.rollout_id)
        await world.seconds(ENOUGH_S)
        assert stopped.state is RolloutState.STOPPED
        assert stopped.reason == "Stopped by ada after 1 devices were asked."
        assert world.hub.told == [(canary_of(rollout), 1, "r-2")]
        with world.sessions() as session, session.begin():
            assert service.asked_devices(session, rollout.rollout_id) == [canary_of(rollout)]

    run(story())


def test_a_stop_between_the_decision_and_the_hub_asks_no_later_wave(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        rollout = world.started()
        world.hub.is_away = True
        await world.seconds(3)
        world.stop(rollout.rollout_id)
        world.hub.is_away = False
        await world.seconds(5)
        assert world.hub.told == []

    run(story())


def test_a_hub_that_is_away_delays_and_loses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        rollout = world.started()
        for number in range(ENOUGH_S):
            world.hub.is_away = number % 3 != 0
            await world.second()
        assert world.show(rollout.rollout_id).state is RolloutState.DONE

    run(story())


def test_a_device_the_hub_does_not_know_halts_with_the_reason(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        world.hub.refuses = lambda device: UnknownDeviceError(f"Expected a registered device, got {device}")
        rollout = world.started()
        await world.seconds(3)
        shown = world.show(rollout.rollout_id)
        assert shown.state is RolloutState.HALTED
        assert "The hub did not take it: Expected a registered device" in shown.reason

    run(story())


def test_a_silent_device_halts_the_rollout_after_the_waves_time(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        rollout = world.started()
        world.devices[canary_of(rollout)].is_silent = True
        await world.seconds(ENOUGH_S)
        shown = world.show(rollout.rollout_id)
        assert shown.state is RolloutState.HALTED
        assert "It was not active within 30 s; it last said: nothing." in shown.reason
        assert len(world.hub.told) == 1

    run(story())


def test_a_revoked_device_is_left_out_while_the_others_move(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        rollout = world.started()
        gone = DeviceId(rollout.waves[1].devices[0].device_id)
        with world.sessions() as session, session.begin():
            devices.mark_revoked(session, gone, now=world.clock)
        await world.seconds(ENOUGH_S)
        shown = world.show(rollout.rollout_id)
        assert shown.state is RolloutState.DONE
        assert states(shown)[gone] == "left_out"
        assert gone not in [device for device, _, _ in world.hub.told]

    run(story())


def test_a_device_in_two_rollouts_is_a_conflict_and_the_second_one_waits(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        first = world.plan("r-2")
        second = world.plan("r-3", devices=["d-01", "d-02"])
        world.start(first.rollout_id)
        with pytest.raises(RolloutConflictError, match="d-01 and 1 more, which the running rollout rollout-r-2 holds"):
            world.start(second.rollout_id)
        await world.seconds(ENOUGH_S)
        world.start(second.rollout_id)
        await world.seconds(ENOUGH_S)
        assert world.show(second.rollout_id).state is RolloutState.DONE
        assert {name: device.active for name, device in world.devices.items()} == {
            "d-00": "r-2",
            "d-01": "r-3",
            "d-02": "r-3",
            "d-03": "r-2",
            "d-04": "r-2",
        }

    run(story())


def test_a_halted_rollout_holds_its_devices_until_it_is_stopped(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        first = world.started("r-2")
        world.devices[canary_of(first)].fails[1] = "Broken."
        await world.seconds(10)
        second = world.plan("r-3")
        with pytest.raises(RolloutConflictError, match="halted rollout"):
            world.start(second.rollout_id)
        world.stop(first.rollout_id)
        world.start(second.rollout_id)

    run(story())


def test_an_old_plan_does_not_move_devices_back(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        old, new = world.plan("r-2"), world.started("r-3")
        await world.seconds(ENOUGH_S)
        assert world.show(new.rollout_id).state is RolloutState.DONE
        with pytest.raises(StalePlanError):
            world.start(old.rollout_id)
        assert world.show(old.rollout_id).state is RolloutState.PLANNED

    run(story())


def test_two_rollouts_on_different_devices_run_side_by_side(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        first = world.started("r-2", devices=["d-00", "d-01"])
        second = world.started("r-3", devices=["d-02", "d-03"])
        await world.seconds(ENOUGH_S)
        assert world.show(first.rollout_id).state is RolloutState.DONE
        assert world.show(second.rollout_id).state is RolloutState.DONE

    run(story())


def test_a_fleet_that_is_there_already_needs_no_rollout(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        world.started()
        await world.seconds(ENOUGH_S)
        with pytest.raises(NothingToMoveError, match="d-00: It serves this release already"):
            world.plan(name="again")

    run(story())


def test_lifecycle_errors_are_sentences(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        planned = world.plan()
        with pytest.raises(UnknownRolloutError):
            world.start("nothing")
        with pytest.raises(IllegalRolloutTransitionError, match="Expected start, stop in state planned, got resume"):
            world.resume(planned.rollout_id)
        world.start(planned.rollout_id)
        with pytest.raises(IllegalRolloutTransitionError):
            world.start(planned.rollout_id)

    run(story())


def test_the_devices_read_model_shows_what_is_wanted_and_what_is(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path)
        world.started()
        await world.seconds(ENOUGH_S)
        with world.sessions() as session, session.begin():
            shown = devices.view(devices.get_device(session, "d-03"), now=world.clock, heartbeat_s=10)
        assert (shown.desired_release_id, shown.desired_generation) == ("r-2", 1)
        assert (shown.release_id, shown.release_state) == ("r-2", ReleaseState.ACTIVE)
        assert shown.why_not_at_target == ""

    run(story())


def _outcome(world: World, rollout_id: str) -> tuple[object, ...]:
    shown = world.show(rollout_id)
    return (shown.state, states(shown), [device.active for device in world.devices.values()])


def test_a_kill_at_any_commit_and_any_call_of_the_hub_changes_nothing_in_the_end(tmp_path: Path) -> None:
    async def story(folder: Path, kill_at: int | None) -> tuple[int, tuple[object, ...]]:
        world = await open_world(folder, count=3, kill_at=kill_at)
        for device in world.devices.values():
            device.way = (ReleaseState.ACTIVE,)
        rollout = world.started(soak_s=0)
        canary = canary_of(rollout)
        for _ in range(ENOUGH_S):
            await world.second()
            if {device for device, _, _ in world.hub.told} - {canary}:
                assert world.devices[canary].active == "r-2"
            if world.show(rollout.rollout_id).state is RolloutState.DONE:
                break
        assert {(generation, release) for _, generation, release in world.hub.told} == {(1, "r-2")}
        return world.killer.points, _outcome(world, rollout.rollout_id)

    points, expected = asyncio.run(story(tmp_path / "whole", None))
    assert points > 15
    for kill_at in range(1, points + 1):
        assert asyncio.run(story(tmp_path / f"killed-{kill_at}", kill_at))[1] == expected


def test_a_kill_while_a_rollout_halts_still_halts_it(tmp_path: Path) -> None:
    async def story(folder: Path, kill_at: int | None) -> int:
        world = await open_world(folder, count=3, kill_at=kill_at)
        rollout = world.started()
        canary = canary_of(rollout)
        world.devices[canary].fails[1] = "Broken."
        await world.seconds(6)
        assert world.show(rollout.rollout_id).state is RolloutState.HALTED
        assert {device for device, _, _ in world.hub.told} == {canary}
        return world.killer.points

    points = asyncio.run(story(tmp_path / "whole", None))
    for kill_at in range(1, points + 1):
        asyncio.run(story(tmp_path / f"killed-{kill_at}", kill_at))


def test_a_controller_whose_database_is_away_says_so_and_goes_on(tmp_path: Path) -> None:
    said = []

    async def story() -> None:
        world = await open_world(tmp_path)
        world.started()
        world.database_failures_left = 2
        task = asyncio.create_task(world.controller.run_forever(interval_s=0.001))
        async with asyncio.timeout(10):
            while world.health.get("rollouts") != "ok" or len(world.hub.told) == 0:
                said.append(world.health.get("rollouts", ""))
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(story())
    assert any("rollouts stand still: (sqlite3.OperationalError) database is away" in each for each in said)


def test_killed_means_killed(tmp_path: Path) -> None:
    async def story() -> None:
        world = await open_world(tmp_path, kill_at=1)
        world.started()
        with pytest.raises(KilledError):
            await world.controller.step()

    run(story())
