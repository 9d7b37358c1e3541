"""Engines by name; each is imported only when it is asked for."""

from collections.abc import Callable
from importlib import import_module

from simulations.engines.port import Engine, LocalTraining
from simulations.experiments.errors import ExperimentError
from simulations.problem import Problem

ENGINES = {
    "reference": "simulations.engines.reference:ReferenceEngine",
    "vector": "simulations.engines.vector.engine:VectorEngine",
    "cuda": "simulations.engines.cuda.engine:CudaEngine",
    "flower": "simulations.engines.flower:FlowerEngine",
}
"""Name to `module:callable`, which makes an engine of a problem and a local training."""


def make_engine(name: str, problem: Problem, local: LocalTraining) -> Engine:
    """The engine of this name. Raises ExperimentError where there is none."""
    if name not in ENGINES:
        raise ExperimentError.at(("engine",), f"Expected one of {', '.join(ENGINES)}, got {name!r}")
    module, _, attribute = ENGINES[name].partition(":")
    make: Callable[[Problem, LocalTraining], Engine] = getattr(import_module(module), attribute)
    return make(problem, local)
