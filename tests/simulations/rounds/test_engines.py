"""One experiment, every engine: the same results to float tolerance, whatever joins the rounds."""

from importlib.util import find_spec

import numpy as np
import pytest

from simulations.experiments.experiment import Experiment
from simulations.experiments.file import experiment_of
from simulations.experiments.run import run
from simulations.results.result import Result

CASES: dict[str, dict[str, object]] = {
    "plain": {},
    "kept and compressed": {"strategy": "scaffold", "compression": "top-k=0.1+int8"},
    "private, of examples and of clients": {
        "privacy": {"example": {"noise_multiplier": 0.5}, "user": {"noise_multiplier": 0.5}}
    },
    "side by side, with liars": {
        "strategy": "geometric_median",
        "attacks": [{"share": 0.3, "attack": {"name": "a_little"}}],
    },
    "late and stale": {"strategy": {"name": "fedbuff", "buffer": 3}, "behaviour": {"dropout": 0.1}},
    "personal": {"strategy": "ditto"},
}


def experiment(engine: str, **settings: object) -> Experiment:
    small = {
        "rounds": 4,
        "population": {"clients": 12, "partition": {"kind": "dirichlet_by_class", "alpha": 1.0}},
        "cohort": {"clients": 6},
        "engine": engine,
    }
    return experiment_of(small | settings)


def assert_alike(one: Result, other: Result) -> None:
    for name, values in one.metrics.without_clock().items():
        np.testing.assert_allclose(values, other.metrics.columns[name], rtol=2e-3, atol=1e-4, err_msg=name)
    for name, tensor in one.models[0].items():
        there = np.asarray(other.models[0][name], np.float64)
        np.testing.assert_allclose(np.asarray(tensor, np.float64), there, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_vector_engine_gives_what_the_reference_gives(case: str) -> None:
    assert_alike(run(experiment("vector", **CASES[case])), run(experiment("reference", **CASES[case])))


@pytest.mark.processes
@pytest.mark.timeout(170)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")
def test_flower_s_engine_gives_what_the_reference_gives() -> None:
    settings: dict[str, object] = {"rounds": 2, **CASES["kept and compressed"]}
    assert_alike(run(experiment("flower", **settings)), run(experiment("reference", **settings)))
