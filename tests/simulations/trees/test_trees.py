"""Trees in a simulation: the deployed arithmetic, resumed to the same bits, and closed to what trees do not go with."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.strategies import FedXgbBaggingSettings
from shared.tasks.registry import load_task
from shared.trees.boosting import boosting_of
from shared.trees.ensemble import joined
from shared.trees.growing import Growth, grow
from simulations.experiments.errors import ExperimentError
from simulations.experiments.experiment import Experiment
from simulations.experiments.file import experiment_of
from simulations.experiments.run import resume, run
from tests.simulations.experiments.test_run import StopsAfter, assert_same

RATE = 0.2
PAGE = Path(__file__).parents[3] / "docs" / "how_to" / "boosted_trees.md"


def experiment(**settings: Any) -> Experiment:
    small = {
        "data": "physio_trees",
        "population": {"partition": {"kind": "natural"}},
        "cohort": {"clients": 4},
        "strategy": "fedxgb_bagging",
        "rounds": 6,
        "local": {"optimizer": {"name": "sgd", "learning_rate": RATE}},
        "checkpoint": {"every": 2},
    }
    return experiment_of(small | settings)


def test_what_is_simulated_is_what_is_deployed() -> None:
    """Round by round from whole ensembles, as devices and coordinator do it; the loop keeps margins instead."""
    task = load_task("physio_trees")
    boosting, slices = boosting_of(task), list(task.device_slices().values())
    assert boosting is not None
    expected = joined([])
    for _ in range(3):
        grown = [grow(boosting, expected, data.train, Growth(2, RATE)) for data in slices]
        expected = joined([expected, *grown])

    local = {"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": RATE}}
    found = run(experiment(cohort={"clients": 10}, rounds=3, local=local))

    for name, value in expected.tensors.items():
        np.testing.assert_array_equal(found.models[0][name], value)
    rounds = found.metrics.of_seed(0)
    assert rounds["test_accuracy"][-1] > 0.65 > rounds["test_accuracy"][0]
    assert rounds["bytes_up"][1:].min() > 0
    assert (np.diff(rounds["bytes_down"][1:]) > 0).all()  # the ensemble grows, and so does what is sent


def test_the_experiment_of_the_page_reaches_what_the_page_says() -> None:
    toml = PAGE.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    assert "ten devices reach 0.74 on the two unseen people" in PAGE.read_text(encoding="utf-8")
    assert run(experiment_of(tomllib.loads(toml))).accuracy == pytest.approx(0.74, abs=0.01)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    averaged = FedXgbBaggingSettings(is_averaged=True).model_dump()
    whole = run(experiment(strategy=averaged))
    stopped = run(experiment(strategy=averaged), folder=tmp_path / "r", watcher=StopsAfter(3))
    assert stopped.interrupted
    resumed = resume(tmp_path / "r")
    assert_same(resumed, whole)
    assert len(resumed.models[0]["tree_nodes"]) == 6 * 4 * 7
    assert "XGBoost" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "fedavg"}, "Expected fedxgb_bagging for a task whose model is trees, got fedavg"),
        ({"data": "digits", "population": {"clients": 10}}, "Expected a task whose model is trees, got other data"),
        ({"data": {"kind": "synthetic"}, "population": {"clients": 10}}, "got other data"),
        ({"privacy": {"example": {}}}, "privacy.example: Expected no privacy.example with fedxgb_bagging"),
        ({"privacy": {"user": {"epsilon": 8.0}}}, "privacy.user: Expected no privacy.user with fedxgb_bagging"),
        ({"compression": "int8"}, "compression: Expected no compression with fedxgb_bagging"),
        ({"attacks": [{"attack": {"name": "sign_flip"}, "share": 0.1}]}, "Expected no attacks with fedxgb_bagging"),
        ({"behaviour": {}}, "Expected no behaviour with fedxgb_bagging"),
        ({"evaluation": {"held_out": 0.2}}, "Expected no evaluation.held_out"),
        ({"local": {"steps": 3}}, "say local.epochs"),
        ({"local": {"optimizer": "adam"}}, "whose learning_rate is boosting's, got adam"),
        ({"cohort": {"clients": 4, "draw": "utility"}}, "Expected the draw 'uniform'"),
        ({"cohort": {"clients": 11}}, "Expected at most 10, the number of clients, got 11"),
        ({"engine": "cuda"}, "Expected no engine with fedxgb_bagging, got cuda"),
    ],
)
def test_what_does_not_go_with_trees_is_said_with_its_reason(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ExperimentError) as refused:
        run(experiment(**settings))
    assert said in str(refused.value)
