"""Server optimizers: the mean update as a gradient that the server follows in its own way.

FedAvgM: Hsu, Qi and Brown 2019 (arXiv:1909.06335). FedAdam, FedYogi and FedAdagrad: Reddi et al. 2021
(arXiv:2003.00295), algorithm 2. Each is a `ServerOptimizer`; `Optimized` puts one behind any rule:

    fedadam = Optimized(FedAvg(), ServerAdam(learning_rate=0.1))

What a robust rule combined is an update like any other: `optimizer.step(model, state, combined.delta)`.

Defaults and arithmetic are Flower 1.41's. Where both depart from the paper: the first second moment is zero (the paper
has at least `adaptivity ** 2`), and Adam's step is corrected for its moments' start at zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from cloud.aggregation.rule import NOTHING, Fold, Rule, State, Updates, Vector

_INNER = "rule."
"""Before the names of an optimized rule's own state."""


class ServerOptimizer(Protocol):
    """Moves the model along an update."""

    def init(self, model: Vector) -> State:
        """The state before the first step."""
        ...

    def step(self, model: Vector, state: State, delta: Vector) -> tuple[Vector, State]:
        """The model moved along `delta`, `(parameters,)`, and the next state; the arguments stay as they are."""
        ...


@dataclass(frozen=True)
class ServerSgd:
    """`v <- momentum * v + delta`, `w <- w + learning_rate * v`."""

    learning_rate: float = 1.0
    momentum: float = 0.0

    def init(self, model: Vector) -> State:
        return {"velocity": torch.zeros_like(model)} if self.momentum else {}

    def step(self, model: Vector, state: State, delta: Vector) -> tuple[Vector, State]:
        if not self.momentum:
            return _moved(model, self.learning_rate * delta.double()), {}
        velocity = self.momentum * state["velocity"].double() + delta
        return _moved(model, self.learning_rate * velocity), {"velocity": velocity.to(model.dtype)}


@dataclass(frozen=True)
class ServerAdagrad:
    """`v <- v + delta^2`, `w <- w + learning_rate * delta / (sqrt(v) + adaptivity)`."""

    learning_rate: float = 0.1
    adaptivity: float = 1e-3
    """The paper's tau: the larger, the more alike all parameters' steps are."""

    def init(self, model: Vector) -> State:
        return {"second": torch.zeros_like(model)}

    def step(self, model: Vector, state: State, delta: Vector) -> tuple[Vector, State]:
        second = state["second"].double() + delta.double().square()
        step = self.learning_rate * delta.double() / (second.sqrt() + self.adaptivity)
        return _moved(model, step), {"second": second.to(model.dtype)}


@dataclass(frozen=True)
class ServerYogi:
    """As Adam without the correction, but `v <- v - (1 - beta2) * delta^2 * sign(v - delta^2)`."""

    learning_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    adaptivity: float = 1e-3

    def init(self, model: Vector) -> State:
        return {"first": torch.zeros_like(model), "second": torch.zeros_like(model)}

    def step(self, model: Vector, state: State, delta: Vector) -> tuple[Vector, State]:
        first = _decayed(state["first"], delta.double(), beta=self.beta1)
        square, before = delta.double().square(), state["second"].double()
        second = before - (1 - self.beta2) * square * torch.sign(before - square)
        step = self.learning_rate * first / (second.sqrt() + self.adaptivity)
        return _moved(model, step), {"first": first.to(model.dtype), "second": second.to(model.dtype)}


@dataclass(frozen=True)
class ServerAdam:
    """`m`, `v`: decaying means of delta and delta^2; `w <- w + rate_t * m / (sqrt(v) + adaptivity)`.

    `rate_t` is `learning_rate * sqrt(1 - beta2^(t + 1)) / (1 - beta1^(t + 1))` in step t, counted from 1.
    """

    learning_rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    adaptivity: float = 1e-3

    def init(self, model: Vector) -> State:
        steps = torch.zeros((), dtype=torch.float64, device=model.device)
        return {"first": torch.zeros_like(model), "second": torch.zeros_like(model), "steps": steps}

    def step(self, model: Vector, state: State, delta: Vector) -> tuple[Vector, State]:
        steps = state["steps"] + 1
        first = _decayed(state["first"], delta.double(), beta=self.beta1)
        second = _decayed(state["second"], delta.double().square(), beta=self.beta2)
        # Kingma and Ba 2015 have t in the exponents; Flower counts one more, and so do we.
        correction = torch.sqrt(1 - self.beta2 ** (steps + 1)) / (1 - self.beta1 ** (steps + 1))
        step = self.learning_rate * correction * first / (second.sqrt() + self.adaptivity)
        kept = {"first": first.to(model.dtype), "second": second.to(model.dtype), "steps": steps}
        return _moved(model, step), kept


@dataclass(frozen=True)
class Optimized:
    """A rule whose step from model to next model is not taken, but given to a server optimizer."""

    rule: Rule
    optimizer: ServerOptimizer

    def init(self, model: Vector) -> State:
        return self.optimizer.init(model) | _outer(self.rule.init(model))

    def sent(self, state: State) -> Mapping[str, Vector]:
        return self.rule.sent(_inner(state))

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        return self.rule.begin(model, sent)

    def add(self, fold: Fold, updates: Updates) -> None:
        self.rule.add(fold, updates)

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        # In double precision: a small step between two large float32 numbers would lose its digits.
        exact = model.double()
        proposed, inner = self.rule.finish(exact, _inner(state), fold)
        moved, own = self.optimizer.step(model, state, proposed - exact)
        return moved, own | _outer(inner)


def _decayed(mean: Vector, value: Vector, *, beta: float) -> Vector:
    return beta * mean.double() + (1 - beta) * value


def _moved(model: Vector, step: Vector) -> Vector:
    return (model.double() + step).to(model.dtype)


def _outer(state: State) -> State:
    return {f"{_INNER}{name}": value for name, value in state.items()}


def _inner(state: State) -> State:
    return {name.removeprefix(_INNER): value for name, value in state.items() if name.startswith(_INNER)}
