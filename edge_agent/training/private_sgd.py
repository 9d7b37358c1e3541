"""DP-SGD whose unit of privacy is the task's own: one gradient for each unit, clipped once.

A clipping engine turns a batch into one sum of clipped gradients: book-keeping, or Opacus where a layer needs it. The
examples of one unit are averaged before the clipping, units are drawn by Poisson sampling, and noise and sampling come
from a secure generator.

Guarantees:
    Every step is the Poisson-subsampled Gaussian mechanism on units: with a unit added or removed, the sum changes by
    at most `max_grad_norm` in L2, and the noise has standard deviation `noise_multiplier * max_grad_norm`. The number
    of units is taken as public (it scales the step). Void where the model mixes examples of a batch.
"""

from typing import Protocol

import numpy as np
import torch

from edge_agent.training.clipping.chooser import choose_engine
from edge_agent.training.clipping.port import ClippingEngine
from edge_agent.training.clipping.sums import Sums
from edge_agent.training.clipping.units import Units
from edge_agent.training.terms import LocalSgd, Terms
from shared.gaussian import GaussianNoise
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.tasks.task import Examples, Task

_TRIAL_EXAMPLES = 2


class InnerOptimizer(Protocol):
    """What moves the weights: `LocalSgd`, or any of torch's."""

    def step(self) -> object: ...


class UnitOptimizer:
    """Steps as Opacus' DPOptimizer does, over sums that an engine has clipped: noise, mean, and the optimizer inside.

    It has none of that class' code, whose import takes longer than a round on a small device.

    Args:
        optimizer: Of what `sums.weights()` gave, or of parameters whose `grad` is their part of the sums.
        sums: What the engine writes before each `step`.
        spec: Clipping and noise.
        units: How many there are, of which each takes part in a step by chance.
        randomness: Of the noise.
    """

    def __init__(
        self,
        optimizer: InnerOptimizer,
        sums: Sums,
        *,
        spec: PrivacySpec,
        units: int,
        randomness: SecureRandomness,
    ) -> None:
        self._optimizer, self._sums = optimizer, sums
        self._expected_units = units * spec.sampling_rate
        deviation = spec.noise_multiplier * spec.max_grad_norm
        self._noise = GaussianNoise(randomness, size=len(sums.vector), standard_deviation=deviation)

    def step(self) -> None:
        """Noise on the sums, their mean over the units a step is expected to have, and a step along it."""
        self._noise.add_to(self._sums.vector, scale=1 / self._expected_units)
        self._optimizer.step()


def train_privately(
    task: Task,
    model: torch.nn.Module,
    examples: Examples,
    *,
    spec: PrivacySpec,
    learning_rate: float,
    randomness: SecureRandomness,
    terms: Terms | None = None,
) -> ClippingEngine:
    """Trains in place those of the model's parameters that require a gradient, for `spec.steps_per_round` steps.

    Returns the engine that clipped, for what it says of itself. Raises UnclippableModelError.
    """
    examples = _by_unit(examples)
    unit_numbers, unit_of = np.unique(examples.units, return_inverse=True)
    inputs, labels = torch.from_numpy(examples.inputs), torch.from_numpy(examples.labels)
    engine = choose_engine(
        model.train(),
        task.loss,
        max_grad_norm=spec.max_grad_norm,
        inputs=inputs[:_TRIAL_EXAMPLES],
        labels=labels[:_TRIAL_EXAMPLES],
    )
    sums = Sums([parameter for parameter in model.parameters() if parameter.requires_grad])
    optimizer = UnitOptimizer(
        LocalSgd([sums.weights()], learning_rate=learning_rate, terms=terms),
        sums,
        spec=spec,
        units=len(unit_numbers),
        randomness=randomness,
    )
    try:
        for _ in range(spec.steps_per_round):
            is_sampled = randomness.uniform(len(unit_numbers)) < spec.sampling_rate
            chosen = np.flatnonzero(is_sampled[unit_of])
            engine.clipped_sums(inputs[chosen], labels[chosen], Units.of(unit_of[chosen]), sums)
            optimizer.step()
    finally:
        engine.close()
    return engine


def _by_unit(examples: Examples) -> Examples:
    """The same examples, those of one unit together."""
    order = np.argsort(examples.units, kind="stable")
    return Examples(examples.inputs[order], examples.labels[order], examples.units[order])
