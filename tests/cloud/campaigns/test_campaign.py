from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from sqlmodel import select

from cloud.campaigns.errors import CampaignFailedError
from cloud.campaigns.flower.hub_grid import node_id_of
from cloud.campaigns.flower.records import NodeReply, message_of
from cloud.campaigns.models import RoundRow
from cloud.jobs.context import JobCancelledError
from cloud.registry.service import get_version
from cloud.work.service import results_of
from shared.beside import put_beside, take_beside
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from shared.strategies import StrategySettingError
from shared.tensors import Array, Tensors
from tests.cloud.campaigns.world import World, answer, done, fails, refuses, stays_silent, trains, update_of


def _statuses(world: World, number: int = 1, attempt: int = 1) -> dict[str, str]:
    (found,) = [r for r in world.campaign().history if (r.round, r.attempt) == (number, attempt)]
    return {device.device_id: device.status for device in found.devices}


def _reason(world: World, device_id: str, number: int = 1) -> str:
    (found,) = [r for r in world.campaign().history if r.round == number]
    return next(device.reason for device in found.devices if device.device_id == device_id)


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
    flowers = _flower_average({name: _first_update(world, name) for name in ("a", "b", "c")})
    assert set(ours) == set(flowers)
    for name, value in flowers.items():
        _assert_close(ours[name], value)


def _assert_close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=0, atol=1e-6)


def _first_update(world: World, name: str) -> Tensors:
    work = Work.model_validate(
        {"work_id": "w", "kind": "train", "campaign_id": "c", "round": 1, "task": "digits", "task_version": "1"}
        | {"model": {"digest": "0" * 64, "size_bytes": 1}, "deadline_s": 1}
    )
    return update_of(DeviceId(name), work, world.model)


def _flower_average(updates: dict[str, Tensors]) -> Tensors:
    replies = []
    for name, tensors in updates.items():
        reply = NodeReply(node_id_of(DeviceId(name)), name, tensors=tensors, metrics={"num-examples": 11.0})
        message = message_of(reply, run_id=1, now=0.0)
        arrays = ArrayRecord({key: FlowerArray(np.asarray(value)) for key, value in tensors.items()})
        message.content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 11.0})})
        replies.append(message)
    record, _ = FedAvg().aggregate_train(1, replies)
    assert record is not None
    return {name: array.numpy() for name, array in record.items()}


def test_a_device_that_refused_is_not_asked_again(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.add("c", refuses)
    world.ask()

    world.run()

    assert _statuses(world) == {"a": "done", "b": "done", "c": "refused"}
    assert _statuses(world, 2) == {"a": "done", "b": "done"}
    assert "Privacy budget spent" in world.campaign().history[1].excluded["c"]


def test_a_device_that_failed_is_asked_again(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.add("c", fails)
    world.ask()

    world.run()

    assert _statuses(world, 2)["c"] == "failed"
    assert _reason(world, "c") == "Out of memory"


def test_the_deadline_closes_a_round_with_quorum_and_work_of_silent_devices_is_taken_back(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.add("c", stays_silent)
    world.ask(rounds=1)

    world.run()

    assert _statuses(world) == {"a": "done", "b": "done", "c": "silent"}
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

    assert _statuses(world, 1)["c"] == "late"
    assert "not used, as fedavg joins updates of one round alone" in _reason(world, "c")
    assert _statuses(world, 2)["c"] == "done"


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
    assert _statuses(world)["c"] == "silent"

    result = trains(world, DeviceId("c"), held[0])
    assert result is not None
    for _ in range(2):  # events come twice
        world.hear(DeviceId("c"), result)

    assert _statuses(world)["c"] == "late"
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

    assert _statuses(world) == {"a": "done", "b": "done"}


def _with_nan(tensors: Tensors) -> Tensors:
    name = next(iter(tensors))
    return {**tensors, name: np.full_like(tensors[name], np.nan)}


def _with_wrong_shape(tensors: Tensors) -> Tensors:
    name = next(iter(tensors))
    return {**tensors, name: tensors[name][:1]}


def _with_wrong_dtype(tensors: Tensors) -> Tensors:
    return {name: value.astype(np.float64) for name, value in tensors.items()}


def _without_one(tensors: Tensors) -> Tensors:
    return dict(list(tensors.items())[1:])


def _with_one_more(tensors: Tensors) -> Tensors:
    return {**tensors, "backdoor": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_with_nan, "Expected finite numbers"),
        (_with_wrong_shape, "Expected tensor"),
        (_with_wrong_dtype, "Expected tensor"),
        (_without_one, "is missing"),
        (_with_one_more, "'backdoor'"),
    ],
)
def test_a_malformed_update_is_rejected_with_its_reason_and_the_model_is_the_others(
    world: World, spoil: Callable[[Tensors], Tensors], reason: str
) -> None:
    def sends_rubbish(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        return done(world, work, spoil(update_of(device_id, work, world.received(work))))

    world.add("a", trains)
    world.add("b", trains)
    world.add("c", sends_rubbish)
    world.ask(rounds=1)

    result = world.run()

    assert _statuses(world)["c"] == "failed"
    assert reason in _reason(world, "c")
    expected = _flower_average({name: _first_update(world, name) for name in ("a", "b")})
    for name, value in world.weights(str(result["model_version_id"])).items():
        _assert_close(value, expected[name])


def _never_uploaded(world: World, work: Work, good: WorkResult) -> WorkResult:
    return good.model_copy(update={"update": ObjectRef.model_validate({"digest": "f" * 64, "size_bytes": 10})})


def _of_wrong_length(world: World, work: Work, good: WorkResult) -> WorkResult:
    assert good.update is not None
    return good.model_copy(update={"update": good.update.model_copy(update={"size_bytes": 10})})


def _not_tensors(world: World, work: Work, good: WorkResult) -> WorkResult:
    return good.model_copy(update={"update": world.blobs.put(b"\x80\x04pickle")})


def _enormous(world: World, work: Work, good: WorkResult) -> WorkResult:
    return good.model_copy(update={"update": world.blobs.put(bytes(2_000_000))})


def _no_update(world: World, work: Work, good: WorkResult) -> WorkResult:
    return good.model_copy(update={"update": None})


def _no_weight(world: World, work: Work, good: WorkResult) -> WorkResult:
    return good.model_copy(update={"metrics": {"loss": 1.0}})


def _too_heavy(world: World, work: Work, good: WorkResult) -> WorkResult:
    return good.model_copy(update={"metrics": {"num-examples": 1e12}})


def _negative(world: World, work: Work, good: WorkResult) -> WorkResult:
    return good.model_copy(update={"metrics": {"num-examples": -5.0}})


@pytest.mark.parametrize(
    "spoil",
    [_never_uploaded, _of_wrong_length, _not_tensors, _enormous, _no_update, _no_weight, _too_heavy, _negative],
)
def test_a_result_that_does_not_keep_its_word_is_rejected(
    world: World, spoil: Callable[[World, Work, WorkResult], WorkResult]
) -> None:
    def sends_rubbish(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        good = trains(world, device_id, work)
        assert good is not None
        return spoil(world, work, good)

    world.add("a", trains)
    world.add("b", trains)
    world.add("c", sends_rubbish)
    world.ask(rounds=1)

    world.run()

    assert _statuses(world)["c"] == "failed"
    assert _reason(world, "c").startswith("Update rejected: ")


def test_updates_that_overflow_together_abandon_the_round_not_the_process(world: World) -> None:
    def sends_huge_numbers(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        huge = {name: np.full_like(value, 3e38) for name, value in world.received(work).items()}
        return done(world, work, huge, {"num-examples": 1.0, "loss": 1.0})

    world.add("a", sends_huge_numbers)
    world.add("b", sends_huge_numbers)
    world.ask(rounds=1, strategy="fedadagrad")

    with pytest.raises(CampaignFailedError, match="finite"):
        world.run()


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

    assert _statuses(world) == {"a": "done", "b": "done"}


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


def _flips_its_sign(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    """A liar: ten times as far as an honest device, in the opposite direction."""
    model = world.received(work)
    honest = update_of(device_id, work, model)
    return done(world, work, {name: _moved(model[name], honest[name], times=-10) for name in model})


@pytest.mark.parametrize("strategy", ["krum", "multi_krum", "median", "geometric_median", "norm_clipping"])
def test_a_liar_has_the_highest_anomaly_score_of_a_robust_campaign(world: World, strategy: str) -> None:
    for name in ("a", "b", "d", "e", "f"):
        world.add(name, trains)
    world.add("c", _flips_its_sign)
    world.ask(rounds=1, strategy=strategy)

    result = world.run()

    (found,) = world.campaign().history
    scores = {device.device_id: device.anomaly_score or 0.0 for device in found.devices}
    assert max(scores, key=lambda name: scores[name]) == "c"
    used = {device.device_id for device in found.devices if device.is_used}
    assert ("c" in used) == (strategy not in ("krum", "multi_krum"))
    moved = world.weights(str(result["model_version_id"]))
    assert _largest_change(world.model, moved) < 0.05


def test_plain_averaging_follows_the_same_liar(world: World) -> None:
    for name in ("a", "b"):
        world.add(name, trains)
    world.add("c", _flips_its_sign)
    world.ask(rounds=1)

    result = world.run()

    moved = world.weights(str(result["model_version_id"]))
    assert _largest_change(world.model, moved) > 0.05
    assert all(device.anomaly_score is None for device in world.campaign().history[0].devices)


def test_too_few_updates_for_a_robust_strategy_abandon_the_round_with_the_reason(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.ask(rounds=1, strategy="krum")

    with pytest.raises(CampaignFailedError, match="Expected at least 5 updates"):
        world.run()


def test_an_update_without_what_its_strategy_needs_is_rejected(world: World) -> None:
    def forgets_its_control(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        model, _ = take_beside(world.received(work))
        return done(world, work, update_of(device_id, work, model))

    def sends_a_short_control(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        model, _ = take_beside(world.received(work))
        return done(world, work, put_beside(update_of(device_id, work, model), {"control": np.zeros(3, np.float32)}))

    world.add("a", trains)
    world.add("b", trains)
    world.add("c", forgets_its_control)
    world.add("d", sends_a_short_control)
    world.ask(rounds=1, strategy="scaffold")

    world.run()

    assert _statuses(world) == {"a": "done", "b": "done", "c": "failed", "d": "failed"}
    assert "'control'" in _reason(world, "c")
    assert "(3,)" in _reason(world, "d")


def test_devices_learn_which_of_their_own_updates_counted(world: World) -> None:
    """What a device kept of work that never counted is void: a server that forgot it must not meet it again."""
    told: list[tuple[str, int, object]] = []

    def notes(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        told.append((device_id, work.round, work.config.get("after-work")))
        return (
            stays_silent(world, device_id, work)
            if (device_id, work.round) == ("c", 2)
            else trains(world, device_id, work)
        )

    for name in ("a", "b", "c"):
        world.add(name, notes)
    world.ask(rounds=3, strategy="scaffold")

    world.run()

    ids = {row.round: row.work_ids for row in _rows(world)}
    assert ("c", 1, None) in told
    assert ("c", 2, ids[1]["c"]) in told
    assert ("c", 3, ids[1]["c"]) in told
    assert ("a", 3, ids[2]["a"]) in told


def test_own_layers_that_the_model_does_not_have_end_a_campaign_before_anybody_is_asked(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.ask(strategy="fedper", strategy_settings={"local": ["head"]})

    with pytest.raises(StrategySettingError, match="got 0 of 4 to keep: the trained are"):
        world.run()

    assert world.campaign().history == []


def _rows(world: World) -> list[RoundRow]:
    with world.sessions() as session, session.begin():
        return list(session.exec(select(RoundRow)).all())


def _moved(start: Array, end: Array, *, times: float) -> Array:
    begun, ended = np.asarray(start, np.float32), np.asarray(end, np.float32)
    return begun + np.float32(times) * (ended - begun)


def _largest_change(before: Tensors, after: Tensors) -> float:
    changes = [np.asarray(after[name], np.float64) - np.asarray(before[name], np.float64) for name in after]
    return max(float(np.abs(change).max()) for change in changes)
