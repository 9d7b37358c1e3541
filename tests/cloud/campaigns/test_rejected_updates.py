"""Updates that cannot be right: rejected with the reason, and the model is that of the others."""

from collections.abc import Callable

import numpy as np
import pytest

from cloud.campaigns.errors import CampaignFailedError
from cloud.devices.models import DeviceRecord
from shared.beside import put_beside, take_beside
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult
from shared.messages.work import Work
from shared.tensors import Tensors
from tests.cloud.campaigns.by_flower import assert_close, first_update, flower_average
from tests.cloud.campaigns.world import World, done, trains, update_of


def _counted_against(world: World, name: str) -> int:
    """What was ever refused of the device's, beyond this campaign."""
    with world.sessions() as session, session.begin():
        return session.get_one(DeviceRecord, name).events_rejected


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

    assert world.statuses()["c"] == "failed"
    assert reason in world.reason("c")
    assert {name: _counted_against(world, name) for name in "abc"} == {"a": 0, "b": 0, "c": 1}
    expected = flower_average({name: first_update(world, name) for name in ("a", "b")})
    for name, value in world.weights(str(result["model_version_id"])).items():
        assert_close(value, expected[name])


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

    assert world.statuses()["c"] == "failed"
    assert world.reason("c").startswith("Update rejected: ")
    assert _counted_against(world, "c") == 1


def test_updates_that_overflow_together_abandon_the_round_not_the_process(world: World) -> None:
    def sends_huge_numbers(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        huge = {name: np.full_like(value, 3e38) for name, value in world.received(work).items()}
        return done(world, work, huge, {"num-examples": 1.0, "loss": 1.0})

    world.add("a", sends_huge_numbers)
    world.add("b", sends_huge_numbers)
    world.ask(rounds=1, strategy="fedadagrad")

    with pytest.raises(CampaignFailedError, match="finite"):
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

    assert world.statuses() == {"a": "done", "b": "done", "c": "failed", "d": "failed"}
    assert "'control'" in world.reason("c")
    assert "(3,)" in world.reason("d")
