"""Whole campaigns: rounds, deadlines, late and duplicate answers, tries, cancelling, and what privacy allows."""

import numpy as np
import pytest
from flwr.app import Message

from cloud.campaigns.errors import CampaignFailedError
from cloud.campaigns.flower.records import NodeReply, message_of
from cloud.jobs.context import JobCancelledError
from cloud.registry.service import get_version
from cloud.work.service import results_of
from shared.ids import DeviceId
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from tests.cloud.campaigns.by_flower import assert_close, first_update, flower_average
from tests.cloud.campaigns.world import World, answer, fails, refuses, stays_silent, trains


def test_every_round_averages_all_updates_and_the_result_is_registered_with_its_lineage(world: World) -> None:
    for name in ("a", "b", "c"):
        world.add(name, trains)
    world.ask(rounds=3)

    result = world.run()

    campaign = world.campaign()
    assert [r.state for r in campaign.history] == ["done"] * 3
    assert campaign.rounds_done == 3
    assert campaign.result_model_version_id == result["model_version_id"]
    assert campaign.start_accuracy is not None
    with world.sessions() as session, session.begin():
        lineage = get_version(session, str(result["model_version_id"])).lineage
    assert lineage["parent"] == "start-model"
    assert lineage["devices"] == {"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3]}
    assert lineage["bytes_up"] == sum(r.bytes_up for r in campaign.history) > 0
    assert lineage["bytes_down"] == sum(r.bytes_down for r in campaign.history) > 0
    assert world.progress[-1]["rounds_done"] == 3


def test_aggregates_as_flower_does(world: World) -> None:
    for name in ("a", "b", "c"):
        world.add(name, trains)
    world.ask(rounds=1)

    result = world.run()

    ours = world.weights(str(result["model_version_id"]))
    flowers = flower_average({name: first_update(world, name) for name in ("a", "b", "c")})
    assert set(ours) == set(flowers)
    for name, value in flowers.items():
        assert_close(ours[name], value)


def test_a_device_that_refused_is_not_asked_again(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.add("c", refuses)
    world.ask()

    world.run()

    assert world.statuses() == {"a": "done", "b": "done", "c": "refused"}
    assert world.statuses(2) == {"a": "done", "b": "done"}
    assert "Privacy budget spent" in world.campaign().history[1].excluded["c"]


def test_a_device_that_failed_is_asked_again(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.add("c", fails)
    world.ask()

    world.run()

    assert world.statuses(2)["c"] == "failed"
    assert world.reason("c") == "Out of memory"


def test_the_deadline_closes_a_round_with_quorum_and_work_of_silent_devices_is_taken_back(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.add("c", stays_silent)
    world.ask(rounds=1)

    world.run()

    assert world.statuses() == {"a": "done", "b": "done", "c": "silent"}
    with world.sessions() as session, session.begin():
        states = {one.device_id: one.state for one in results_of(session, campaign_id="campaign-1", round=1)}
    assert states == {"a": "done", "b": "done", "c": "expired"}


def test_an_answer_after_its_round_is_shown_as_late_and_changes_nothing(world: World) -> None:
    held: list[Work] = []

    def answers_round_one_in_round_two(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        if work.round == 1:
            held[:] = [work]
            return None
        world.tell(device_id, trains(world, device_id, held[0]) or answer(work, WorkStatus.FAILED))
        return trains(world, device_id, work)

    world.add("a", trains)
    world.add("b", trains)
    world.add("c", answers_round_one_in_round_two)
    world.ask()

    world.run()

    assert world.statuses(1)["c"] == "late"
    assert "not used, as fedavg joins updates of one round alone" in world.reason("c")
    assert world.statuses(2)["c"] == "done"


def test_an_answer_after_the_campaigns_end_is_shown_too(world: World) -> None:
    held: list[Work] = []

    def goes_away(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        held[:] = [work]
        return None

    world.add("a", trains)
    world.add("b", trains)
    world.add("c", goes_away)
    world.ask(rounds=1)
    world.run()
    assert world.statuses()["c"] == "silent"

    result = trains(world, DeviceId("c"), held[0])
    assert result is not None
    for _ in range(2):  # events come twice
        world.hear(DeviceId("c"), result)

    assert world.statuses()["c"] == "late"
    found = world.campaign().history[0]
    assert found.state == "done"
    assert found.finished_at is not None
    assert found.finished_at < world.clock + 1


def test_a_duplicate_answer_counts_once_and_the_first_one_stands(world: World) -> None:
    def says_it_twice(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        first = trains(world, device_id, work)
        assert first is not None
        world.tell(device_id, first)
        world.tell(device_id, first)
        return answer(work, WorkStatus.FAILED, reason="changed my mind")

    world.add("a", trains)
    world.add("b", says_it_twice)
    world.ask(rounds=1)

    world.run()

    assert world.statuses() == {"a": "done", "b": "done"}


def test_an_abandoned_round_is_tried_again_and_then_the_campaign_goes_on(world: World) -> None:
    def fails_once(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        asked.append(work.work_id)
        return fails(world, device_id, work) if len(asked) == 1 else trains(world, device_id, work)

    asked: list[str] = []
    world.add("a", trains)
    world.add("b", fails_once)
    world.ask()

    world.run()

    assert [(r.round, r.attempt, r.state) for r in world.campaign().history] == [
        (1, 1, "abandoned"),
        (1, 2, "done"),
        (2, 1, "done"),
    ]
    assert world.campaign().history[0].reason == "Expected 2 updates in round 1, got 1 done, 1 failed"
    assert len(set(asked)) == 3


def test_a_round_that_never_succeeds_fails_the_campaign_with_one_sentence(world: World) -> None:
    world.add("a", trains)
    world.add("b", fails)
    world.ask()

    with pytest.raises(CampaignFailedError, match=r"Expected round 1 to succeed in 3 tries: .* 1 done, 1 failed"):
        world.run()

    assert [r.state for r in world.campaign().history] == ["abandoned"] * 3


def test_without_devices_enough_the_campaign_says_why_each_was_not_asked(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains, tasks={"digits": "0"})
    world.ask()

    with pytest.raises(CampaignFailedError, match="Expected at least 2 devices to ask, got 1"):
        world.run()

    assert "version 1" in world.campaign().history[0].excluded["b"]


def test_waits_for_devices_that_come_online(world: World) -> None:
    world.add("a", trains)

    def plug_in(world: World) -> None:
        if "b" not in world.devices and world.clock > 1_003:
            world.add("b", trains)

    world.on_sleep = plug_in
    world.ask(rounds=1)

    world.run()

    assert world.statuses() == {"a": "done", "b": "done"}


def test_cancelling_takes_the_work_back(world: World) -> None:
    def cancel_at_1005() -> None:
        if world.clock > 1_005:
            raise JobCancelledError

    world.add("a", trains)
    world.add("b", stays_silent)
    world.cancelled = cancel_at_1005
    world.ask()

    with pytest.raises(JobCancelledError):
        world.run()

    (found,) = world.campaign().history
    assert (found.state, found.reason) == ("abandoned", "Cancelled")
    with world.sessions() as session, session.begin():
        states = {one.device_id: one.state for one in results_of(session, campaign_id="campaign-1", round=1)}
    assert states[DeviceId("b")] == "expired"


def test_each_work_carries_the_privacy_that_was_planned_for_all_rounds(world: World) -> None:
    seen: list[Work] = []

    def remembers(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        seen.append(work)
        return trains(world, device_id, work)

    world.add("a", remembers)
    world.add("b", remembers)
    world.ask(rounds=3, privacy={"epsilon": 4.0, "delta": 1e-5})

    world.run()

    planned = world.campaign().privacy
    assert planned is not None
    assert (planned.epsilon, planned.rounds) == (4.0, 3)
    assert planned.noise_multiplier > 0
    assert [work.privacy for work in seen] == [planned] * 6


def test_no_device_takes_part_more_often_than_its_privacy_budget_covers(world: World) -> None:
    """Two tries of round 1 cost both devices as much as two rounds; the third round is not to be had."""
    asked: list[str] = []

    def fails_first(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        asked.append(device_id)
        return fails(world, device_id, work) if asked == ["a", "b"] else trains(world, device_id, work)

    world.add("a", fails_first)
    world.add("b", fails_first)
    world.ask(rounds=3, privacy={"epsilon": 4.0})

    world.run()

    assert (asked.count("a"), asked.count("b")) == (3, 3)
    assert world.campaign().rounds_done == 2


def test_replies_to_strategies_are_ordinary_flower_messages() -> None:
    reply = NodeReply(7, "work-1", tensors={"w": np.ones(2, np.float32)}, metrics={"num-examples": 3.0})

    message: Message = message_of(reply, run_id=5, now=1.0)

    assert message.metadata.src_node_id == 7
    assert message.metadata.reply_to_message_id == "work-1"
    assert message.content["metrics"]["num-examples"] == 3.0
