"""SGD whose gradients get what a client algorithm adds: after clipping and noise, just before each step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edge_agent.training.algorithms.alternation import Alternation, Turn


@dataclass(frozen=True)
class Terms:
    """`proximal * (w - start) + linear`, flat over the trained parameters in their order."""

    start: torch.Tensor
    """`(parameters,)`."""
    proximal: float = 0.0
    linear: torch.Tensor | None = None
    turns: "Turns | None" = None

    def of(self, weights: torch.Tensor) -> torch.Tensor:
        """What is added to the gradient at these weights, `(parameters,)`."""
        pulled = self.proximal * (weights - self.start)
        return pulled if self.linear is None else pulled + self.linear


@dataclass(frozen=True)
class Turns:
    """Which parameters each step moves, where they take turns."""

    alternation: Alternation
    is_head: torch.Tensor
    """`(parameters,)`, 1 in the head and 0 elsewhere."""
    steps: int
    """Of the whole training."""

    def moving(self, step: int) -> torch.Tensor | None:
        """1 where this step, counted from 0, moves a parameter and 0 elsewhere; None: everywhere."""
        turn = self.alternation.turn(step, steps=self.steps)
        if turn is Turn.BOTH:
            return None
        return self.is_head if turn is Turn.HEAD else 1 - self.is_head


class LocalSgd:
    """Plain SGD over the parameters, with the terms where there are any; in numbers as torch.optim.SGD.

    Not torch's own: making one imports its compiler, which takes longer than all other imports of a cold start.

    Args:
        parameters: Their `grad` is followed; one without is left where it is.
        learning_rate: Of every step.
        terms: What is added to the gradients before each step.
    """

    def __init__(
        self, parameters: Sequence[torch.nn.Parameter], *, learning_rate: float, terms: Terms | None = None
    ) -> None:
        self._parameters, self._learning_rate = parameters, learning_rate
        self._terms = terms if terms is not None and (terms.proximal or terms.linear is not None) else None
        self._turns = terms.turns if terms is not None else None
        self._steps = 0

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def skip(self) -> None:
        """A step that nobody takes part in: it moves nothing, and counts."""
        self._steps += 1

    @torch.no_grad()
    def step(self) -> None:
        if self._terms is not None:
            _add(self._terms, self._parameters)
        if self._turns is not None and (moving := self._turns.moving(self._steps)) is not None:
            _keep(moving, self._parameters)
        self._steps += 1
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-self._learning_rate)


def _keep(moving: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> None:
    """Leaves the gradients where `moving` is 1."""
    parts = torch.split(moving, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        if parameter.grad is not None:
            parameter.grad.mul_(part.view_as(parameter))


def _add(terms: Terms, parameters: Sequence[torch.nn.Parameter]) -> None:
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    parts = torch.split(terms.of(weights), [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        assert parameter.grad is not None, "Every trained parameter has a gradient at a step."
        parameter.grad.add_(part.view_as(parameter))
