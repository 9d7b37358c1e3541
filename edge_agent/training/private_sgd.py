"""DP-SGD whose unit of privacy is the task's own: one gradient for each unit, clipped once.

Opacus computes a gradient for each example, clips and sums; what is ours is that the examples of one unit are averaged
before the clipping, that units are drawn by Poisson sampling, and that noise and sampling come from a secure generator.

Guarantees:
    Every step is the Poisson-subsampled Gaussian mechanism on units: with a unit added or removed, the sum changes by
    at most `max_grad_norm` in L2, and the noise has standard deviation `noise_multiplier * max_grad_norm`. The number
    of units is taken as public (it scales the step). Void where the model mixes examples of a batch (BatchNorm).
"""

import warnings
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.tasks.task import Examples, Task


class UnitOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus carries no types, so its base is Any
    """Opacus' optimizer with noise from a secure generator."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, spec: PrivacySpec, units: int, randomness: SecureRandomness
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=spec.noise_multiplier,
            max_grad_norm=spec.max_grad_norm,
            expected_batch_size=units * spec.sampling_rate,
        )
        self._randomness = randomness

    def add_noise(self) -> None:
        """Each parameter's `grad` becomes its clipped sum plus noise."""
        scale = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            noise = self._randomness.normal(tuple(parameter.shape)) * scale
            parameter.grad = (parameter.summed_grad.double() + torch.from_numpy(noise)).to(parameter.dtype)


def train_privately(
    task: Task,
    model: torch.nn.Module,
    examples: Examples,
    *,
    spec: PrivacySpec,
    learning_rate: float,
    randomness: SecureRandomness,
) -> None:
    """Trains in place those of the model's parameters that require a gradient, for `spec.steps_per_round` steps."""
    unit_numbers, unit_of = np.unique(examples.units, return_inverse=True)
    units = len(unit_numbers)
    wrapped = GradSampleModule(model.train())
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = UnitOptimizer(
        torch.optim.SGD(trainable, lr=learning_rate), spec=spec, units=units, randomness=randomness
    )
    try:
        for _ in range(spec.steps_per_round):
            optimizer.zero_grad()
            sampled = np.flatnonzero(randomness.uniform(units) < spec.sampling_rate)
            unit_gradients(task, wrapped, examples, unit_of, sampled)
            optimizer.step()
    finally:
        wrapped.remove_hooks()


def unit_gradients(
    task: Task,
    wrapped: GradSampleModule,
    examples: Examples,
    unit_of: NDArray[np.intp],
    sampled: NDArray[np.intp],
) -> None:
    """Sets each trained parameter's `grad_sample` to `(len(sampled), ...)`: the mean gradient of each sampled unit.

    Args:
        task: For its loss.
        wrapped: The model, in Opacus' hooks.
        examples: All of the device's training examples.
        unit_of: Each example's unit, `(examples,)`, counted from 0.
        sampled: The units of this step, `(sampled,)`, ascending; none is a step of noise alone.
    """
    chosen = np.flatnonzero(np.isin(unit_of, sampled))
    position = np.searchsorted(sampled, unit_of[chosen])
    if len(chosen):
        _backward(task, wrapped, examples, chosen)
    averaging = _averaging_matrix(position, len(sampled))
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            per_example = cast(torch.Tensor, parameter.grad_sample) if len(chosen) else parameter.new_zeros(0)
            averaged = averaging @ per_example.reshape(len(chosen), parameter.numel())
            parameter.grad_sample = averaged.reshape(len(sampled), *parameter.shape)


def _backward(task: Task, wrapped: GradSampleModule, examples: Examples, chosen: NDArray[np.intp]) -> None:
    with warnings.catch_warnings():
        # With frozen first layers no input needs a gradient; torch then warns about Opacus' hooks, which are right.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        outputs = wrapped(torch.from_numpy(examples.inputs[chosen]))
        task.loss(outputs, torch.from_numpy(examples.labels[chosen])).backward()  # type: ignore[no-untyped-call]  # torch


def _averaging_matrix(position: NDArray[np.intp], units: int) -> torch.Tensor:
    """`(units, examples)`: each row averages the examples of its unit."""
    matrix = torch.zeros(units, len(position))
    matrix[torch.from_numpy(position), torch.arange(len(position))] = 1.0
    return matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
