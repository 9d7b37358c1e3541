"""A campaign whose model is trees: durable as any, better than a device alone, closed to what trees do not go with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.campaigns.errors import InvalidCampaignError
from cloud.campaigns.trees import EXCLUDED
from cloud.registry.service import get_version
from cloud.training.evaluate import evaluate
from shared.ids import DeviceId
from shared.messages.events import WorkResult
from shared.messages.work import Work
from shared.tasks.registry import load_task
from shared.tasks.storage import concatenate
from shared.tasks.task import DeviceData, Role
from shared.tensors import Tensors, decode
from shared.trees.boosting import boosting_of
from shared.trees.ensemble import FEATURE, NODES, OUTPUT, VALUE, joined, read_ensemble
from shared.trees.growing import Growth, grow
from tests.cloud.campaigns.real_clients import real_client
from tests.cloud.campaigns.world import Behaviour, KilledError, World, done

TASK = load_task("physio_trees")
BOOSTING = boosting_of(TASK)
assert BOOSTING is not None
RATE = TASK.local_training.learning_rate
DEVICES = {name.removeprefix("subject-"): data for name, data in TASK.device_slices().items() if "left" in name}
NOTHING = joined([])
ROUNDS = 8


def _world(folder: Path, devices: int = 2, **fields: Any) -> World:
    folder.mkdir(exist_ok=True)
    world = World(folder, task="physio_trees", **fields)
    for name in list(DEVICES)[:devices]:
        world.add(name, real_client(DEVICES[name]))
    return world


def _ask(world: World, **fields: Any) -> None:
    world.ask(**{"strategy": "fedxgb_bagging", **fields})


def _accuracy(tensors: Tensors) -> float:
    return evaluate(TASK, tensors, role=Role.UNSEEN).accuracy


def _alone(data: DeviceData, steps: int) -> Tensors:
    assert BOOSTING is not None
    return grow(BOOSTING, NOTHING, data.train, Growth(steps, RATE)).tensors


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Tensors]:
    world = _world(tmp_path_factory.mktemp("world"), devices=len(DEVICES))
    _ask(world, rounds=ROUNDS)
    return world, world.weights(str(world.run()["model_version_id"]))


def test_rounds_beat_every_device_alone_and_come_near_all_data_in_one_place(result: tuple[World, Tensors]) -> None:
    found = _accuracy(result[1])
    alone = [_accuracy(_alone(data, ROUNDS)) for data in DEVICES.values()]
    everything = concatenate([data.train for data in DEVICES.values()])
    assert BOOSTING is not None
    pooled = _accuracy(grow(BOOSTING, NOTHING, everything, Growth(ROUNDS * len(DEVICES), RATE)).tensors)
    print(f"federated {found:.3f}, alone {', '.join(f'{each:.3f}' for each in alone)}, pooled {pooled:.3f}")
    assert found > max(alone)
    assert found > pooled - 0.05


def test_a_round_appends_what_each_device_grows_in_the_order_of_their_names(result: tuple[World, Tensors]) -> None:
    world, tensors = result
    assert BOOSTING is not None
    expected = NOTHING
    for _ in range(ROUNDS):
        grown = [grow(BOOSTING, expected, DEVICES[name].train, Growth(1, RATE)) for name in sorted(DEVICES)]
        expected = joined([expected, *grown])
    for name, value in expected.tensors.items():
        np.testing.assert_array_equal(tensors[name], value)
    first = world.campaign().history[0]
    assert first.bytes_up_raw > 0
    assert {device.metrics["steps"] for device in first.devices} == {1.0}


def test_an_averaged_round_has_the_same_splits_and_smaller_leaves(tmp_path: Path) -> None:
    world = _world(tmp_path / "world")
    _ask(world, rounds=1, strategy_settings={"is_averaged": True})
    averaged = world.weights(str(world.run()["model_version_id"]))
    assert BOOSTING is not None
    whole = joined(grow(BOOSTING, NOTHING, DEVICES[name].train, Growth(1, RATE)) for name in sorted(DEVICES)[:2])
    for name, value in whole.scaled(1 / 2).tensors.items():
        np.testing.assert_array_equal(averaged[name], value)


def test_a_kill_after_any_write_resumes_in_the_same_round_and_ends_with_the_same_trees(tmp_path: Path) -> None:
    def run_to_the_end(world: World) -> str:
        _ask(world, rounds=2)
        try:
            result = world.run()
        except KilledError:
            world.let_devices_work()
            result = world.run()
        with world.sessions() as session, session.begin():
            return get_version(session, str(result["model_version_id"])).weights.digest

    undisturbed = _world(tmp_path / "undisturbed")
    expected = run_to_the_end(undisturbed)
    for write in range(1, undisturbed.writes + 1):
        world = _world(tmp_path / f"kill-{write}", kill_after_writes=write)
        assert run_to_the_end(world) == expected, f"kill after write {write}"
        assert [(r.round, r.attempt, r.state) for r in world.campaign().history] == [(1, 1, "done"), (2, 1, "done")]
        world.engine.dispose()


def _lies(change: Callable[[Tensors], Tensors]) -> Behaviour:
    honest = real_client(DEVICES["3-left"])

    def behave(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        result = honest(world, device_id, work)
        assert result is not None
        assert result.update is not None
        grown = decode(world.blobs.get(result.update.digest))
        return done(world, work, change({name: value.copy() for name, value in grown.items()}), result.metrics)

    return behave


def _put(name: str, place: int, value: float) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        tensors[name][place] = value
        return tensors

    return change


def _twice(tensors: Tensors) -> Tensors:
    assert BOOSTING is not None
    grown = read_ensemble(tensors, BOOSTING)
    return joined([grown, grown]).tensors


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (_put(VALUE, -1, np.nan), "finite numbers in splits and leaves"),
        (_put(VALUE, -1, 1e6), "leaves that add at most 1, got 1e+06"),
        (_put(FEATURE, 0, 24), "splits by features 0 to 23"),
        (_put(OUTPUT, 0, 7), "of 7 classes"),
        (_put(OUTPUT, 0, 1), "each step's trees to add to outputs"),
        (_put(NODES, 0, 1), "nodes"),
        (_twice, "Expected 7 trees, from 1 steps of boosting, got 14"),
        (lambda tensors: {"booster": np.zeros(3, np.uint8)}, "the 4 arrays of trees"),
        (lambda tensors: {name: np.repeat(value, 50_000) for name, value in tensors.items()}, "an update of at most"),
    ],
)
def test_an_update_that_is_no_tree_of_the_task_counts_against_its_device_and_nowhere_else(
    tmp_path: Path, lie: Callable[[Tensors], Tensors], said: str
) -> None:
    world = _world(tmp_path / "world")
    world.add("liar", _lies(lie))
    _ask(world, rounds=1)

    result = world.run()

    devices = {device.device_id: device for device in world.campaign().history[0].devices}
    assert devices["liar"].status == "failed"
    assert devices["liar"].reason.startswith("Update rejected: ")
    assert said in devices["liar"].reason
    assert len(world.weights(str(result["model_version_id"]))[NODES]) == 7 * 2


ASKED: dict[str, dict[str, Any]] = {"privacy": {"privacy": {"epsilon": 8.0}}, "compression": {"compression": "int8"}}


@pytest.mark.parametrize("name", EXCLUDED)
def test_what_does_not_go_with_trees_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    world = _world(tmp_path / "world")
    with pytest.raises(InvalidCampaignError, match=f"Expected no {name} with fedxgb_bagging: {EXCLUDED[name]}"):
        _ask(world, **ASKED[name])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"secure": {"clients_min": 3}}, "secure aggregation goes with, got fedxgb_bagging: trees are appended"),
        ({"user_privacy": {"epsilon": 8.0, "clip_norm": 1.0}}, "got fedxgb_bagging: trees are no vector"),
        ({"strategy": "fedavg"}, "Expected fedxgb_bagging for physio_trees.*got fedavg"),
        ({"strategy": "krum"}, "Expected fedxgb_bagging for physio_trees.*got krum"),
        ({"strategy": "fedprox"}, "Expected fedxgb_bagging for physio_trees.*got fedprox"),
    ],
)
def test_other_strategies_and_protections_are_refused_before_the_campaign_starts(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidCampaignError, match=said):
        _ask(_world(tmp_path / "world"), **fields)


def test_trees_are_not_for_a_task_with_a_network(tmp_path: Path) -> None:
    with pytest.raises(InvalidCampaignError, match=r"Expected a task whose model is an ensemble of trees.*got digits"):
        World(tmp_path).ask(strategy="fedxgb_bagging")
