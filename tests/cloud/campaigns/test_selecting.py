"""Whole campaigns select by their rules, and an operator sees why for each device."""

from cloud.campaigns.journal import Journal
from cloud.campaigns.past import Past
from cloud.campaigns.selection_rules import History
from shared.ids import DeviceId
from shared.messages.events import WorkResult
from shared.messages.work import Work
from tests.cloud.campaigns.world import Behaviour, World, done, fails, stays_silent, trains, update_of


def learns(loss: float, seconds: float = 1.0) -> Behaviour:
    def behaviour(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        metrics = {"num-examples": 10.0, "train-loss": loss}
        result = done(world, work, update_of(device_id, work, world.received(work)), metrics)
        return result.model_copy(update={"duration_s": seconds})

    return behaviour


def test_rounds_ask_whom_the_rules_allow_and_say_why_not_the_others(world: World) -> None:
    world.add("full", trains, live={"battery": 0.9}, tags={"site": "berlin"})
    world.add("low", trains, live={"battery": 0.1}, tags={"site": "berlin"})
    world.add("mains", trains, tags={"site": "berlin"})
    world.add("rome", trains, tags={"site": "rome"})
    world.ask(selection={"battery_min": 0.5, "sites": ["berlin"]})
    world.run()
    for attempt in world.campaign().history:
        assert [device.device_id for device in attempt.devices] == ["full", "mains"]
        assert attempt.excluded["low"] == "Battery at 10%, below 50%"
        assert "is at rome" in attempt.excluded["rome"]


def test_a_device_rests_after_a_round_and_another_takes_its_place(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        world.add(name, trains)
    world.ask(rounds=4, quorum=2, selection={"cohort": 2, "rest_rounds": 1})
    world.run()
    asked = [{device.device_id for device in attempt.devices} for attempt in world.campaign().history]
    assert [len(each) for each in asked] == [2] * 4
    assert asked[0].isdisjoint(asked[1])
    assert asked[0] == asked[2]
    first = world.campaign().history[0]
    assert set(first.chosen) == asked[0]
    assert all(why == "Drawn. 2 of 4, all alike" for why in first.chosen.values())


def test_nobody_waits_for_the_slowest_where_enough_have_answered(world: World) -> None:
    for name in ("a", "b"):
        world.add(name, trains)
    world.add("slow", stays_silent)
    world.ask(rounds=2, quorum=2, round_timeout_s=50, selection={"enough": 2})
    world.run()
    history = world.campaign().history
    assert [attempt.state for attempt in history] == ["done", "done"]
    assert all((attempt.finished_at or 0) - attempt.started_at < 5 for attempt in history)
    assert {device.device_id: device.status for device in history[1].devices} == {
        "a": "done",
        "b": "done",
        "slow": "silent",
    }


def test_a_device_that_keeps_failing_is_left_in_peace(world: World) -> None:
    for name in ("a", "b"):
        world.add(name, trains)
    world.add("bad", fails)
    world.ask(rounds=4, quorum=2, selection={"failures_max": 2})
    world.run()
    history = world.campaign().history
    assert ["bad" in [device.device_id for device in attempt.devices] for attempt in history] == [
        True,
        True,
        False,
        False,
    ]
    assert "2 times in a row" in history[3].excluded["bad"]


def test_utility_asks_those_who_teach_most_and_keeps_exploring(world: World) -> None:
    for number in range(3):
        world.add(f"rich-{number}", learns(5.0))
        world.add(f"poor-{number}", learns(0.01))
    world.ask(rounds=12, quorum=2, selection={"cohort": 2, "draw": "utility"})
    world.run()
    history = world.campaign().history
    times = {name: sum(name in attempt.chosen for attempt in history) for name in world.devices}
    assert min(times.values()) >= 1
    assert sum(count for name, count in times.items() if name.startswith("rich")) > 12
    assert any("Utility" in why for why in history[-1].chosen.values())


def test_histories_follow_a_campaign(world: World) -> None:
    world.add("a", learns(0.7, seconds=3.0))
    world.add("b", trains)
    world.add("bad", fails)
    world.ask(rounds=2, quorum=2)
    world.run()
    histories = Past.of(Journal(world.sessions, "campaign-1", now=lambda: 0.0).tries()).histories
    assert histories["a"] == History(
        last_asked=2, times=2, last_done=2, failures=0, examples=10, loss=0.7, duration_s=3.0
    )
    assert histories["bad"] == History(last_asked=2, failures=2)
