"""Engines by name; each is imported only when it is asked for."""

from collections.abc import Callable
from importlib import import_module

import torch

from simulations.engines.errors import UnsupportedModelError
from simulations.engines.port import Engine, LocalTraining
from simulations.experiments.errors import ExperimentError
from simulations.problem import Problem

_Make = Callable[[Problem, LocalTraining], Engine]

ENGINES = {
    "vector": "simulations.rounds.engines:fastest",
    "cuda": "simulations.engines.cuda.engine:CudaEngine",
    "flower": "simulations.engines.flower:FlowerEngine",
    "reference": "simulations.engines.reference:ReferenceEngine",
}
"""Name to `module:callable`, which makes an engine of a problem and a local training."""
_ON_CPU = "simulations.engines.vector.engine:VectorEngine"


def make_engine(name: str, problem: Problem, local: LocalTraining) -> Engine:
    """The engine of this name. Raises ExperimentError where there is none, or no GPU for it."""
    if name not in ENGINES:
        raise ExperimentError.at(("engine",), f"Expected one of {', '.join(ENGINES)}, got {name!r}")
    if name == "cuda" and not _has_gpu():
        raise ExperimentError.at(("engine",), "Expected a CUDA GPU for cuda, got none", hint='Use engine = "vector".')
    return _made(ENGINES[name], problem, local)


def fastest(problem: Problem, local: LocalTraining) -> Engine:
    """The GPU's engine where there is a GPU that can compute the model, else the CPU's."""
    if _has_gpu():
        try:
            return _made(ENGINES["cuda"], problem, local)
        except UnsupportedModelError:
            pass  # The CPU's engine says in its notes how it computes.
    return _made(_ON_CPU, problem, local)


def _made(place: str, problem: Problem, local: LocalTraining) -> Engine:
    module, _, attribute = place.partition(":")
    make: _Make = getattr(import_module(module), attribute)
    return make(problem, local)


def _has_gpu() -> bool:
    return torch.cuda.is_available()
