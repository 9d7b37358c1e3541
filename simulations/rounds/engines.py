"""Engines by name; each is imported only when it is asked for."""

from collections.abc import Callable
from importlib import import_module

import torch

from simulations.engines.errors import UnsupportedModelError
from simulations.engines.port import Engine, LocalTraining
from simulations.experiments.errors import ExperimentError
from simulations.problem import Problem

_Make = Callable[[Problem, LocalTraining], Engine]

ENGINES = ("vector", "cuda", "flower", "reference")
_OTHERS = {
    "flower": "simulations.engines.flower:FlowerEngine",
    "reference": "simulations.engines.reference:ReferenceEngine",
}
"""Name to `module:callable`, which makes an engine of a problem and a local training."""
_COMPILED_FROM_ROUNDS = 200
"""Seconds of compilation pay from here on: tenths of a round of some ten milliseconds."""


def make_engine(name: str, problem: Problem, local: LocalTraining, *, rounds: int) -> Engine:
    """The engine of this name. Raises ExperimentError where there is none, or no GPU for it."""
    if name not in ENGINES:
        raise ExperimentError.at(("engine",), f"Expected one of {', '.join(ENGINES)}, got {name!r}")
    if name == "cuda" and not _has_gpu():
        raise ExperimentError.at(("engine",), "Expected a CUDA GPU for cuda, got none", hint='Use engine = "vector".')
    if name == "cuda":
        return _on_gpu(problem, local, rounds=rounds)
    if name == "vector":
        return _fastest(problem, local, rounds=rounds)
    return _made(_OTHERS[name], problem, local)


def _fastest(problem: Problem, local: LocalTraining, *, rounds: int) -> Engine:
    """The GPU's engine where there is a GPU that can compute the model, else the CPU's."""
    if _has_gpu():
        try:
            return _on_gpu(problem, local, rounds=rounds)
        except UnsupportedModelError:
            pass  # The CPU's engine says in its notes how it computes.
    return _made("simulations.engines.vector.engine:VectorEngine", problem, local)


def _on_gpu(problem: Problem, local: LocalTraining, *, rounds: int) -> Engine:
    from simulations.engines.cuda.engine import CudaEngine, CudaOptions

    options = CudaOptions(compiler="inductor" if rounds >= _COMPILED_FROM_ROUNDS else None)
    return CudaEngine(problem, local, options)


def _made(place: str, problem: Problem, local: LocalTraining) -> Engine:
    module, _, attribute = place.partition(":")
    make: _Make = getattr(import_module(module), attribute)
    return make(problem, local)


def _has_gpu() -> bool:
    return torch.cuda.is_available()
