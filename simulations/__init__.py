"""For researchers: federated experiments on one machine, measured against peers; and the whole loop as a demonstration.

    import simulations
    result = simulations.run(simulations.Experiment(data="digits", strategy="scaffold", rounds=50))
    result.accuracy, result.metrics.columns["test_accuracy"]

What is named here loads torch when it is first used, and not before.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.experiments.errors import ExperimentError
    from simulations.experiments.experiment import Experiment
    from simulations.experiments.file import read_experiment
    from simulations.experiments.run import resume, run
    from simulations.results.result import Result

__all__ = ["Experiment", "ExperimentError", "Result", "read_experiment", "resume", "run"]

_HOMES = {
    "Experiment": "simulations.experiments.experiment",
    "ExperimentError": "simulations.experiments.errors",
    "Result": "simulations.results.result",
    "read_experiment": "simulations.experiments.file",
    "resume": "simulations.experiments.run",
    "run": "simulations.experiments.run",
}


def __getattr__(name: str) -> Any:  # whatever the module has
    if name not in _HOMES:
        raise AttributeError(f"module 'simulations' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
