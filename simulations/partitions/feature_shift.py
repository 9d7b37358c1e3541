"""Gives each client's inputs a look of their own: another gain and offset, more noise, another angle.

Applied once to the whole training data, since a partition gives each example to one client; test data stay as they are.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from simulations.keyed import Floats, Stream
from simulations.partitions.errors import ImpossiblePartitionError
from simulations.partitions.settings import FeatureShift
from simulations.partitions.shares import Rows, Shares
from simulations.problem import Data, Problem

_BLOCK = 4096


def shift_features(problem: Problem, shares: Shares, settings: FeatureShift, *, seed: int) -> Problem:
    """The problem with each training example as its holder sees it.

    Raises:
        ImpossiblePartitionError: Inputs that are not images are asked to turn.
    """
    inputs = problem.train.inputs
    if settings.rotation_deg and inputs.dim() != 4:
        raise ImpossiblePartitionError(
            f"Expected images (n, channels, height, width) to turn, got inputs of shape {tuple(inputs.shape)}",
            hint="Leave rotation_deg out; gain, offset and noise suit any input.",
        )
    look = _Look(settings, shares.owners(), shares.clients, _channel_spread(inputs), seed)
    shifted = torch.empty_like(inputs)
    for start in range(0, len(inputs), _BLOCK):
        shifted[start : start + _BLOCK] = look.of(inputs[start : start + _BLOCK], start)
    return replace(problem, train=Data(shifted, problem.train.labels))


@dataclass(frozen=True)
class _Look:
    """How each client sees its inputs."""

    settings: FeatureShift
    owners: Rows
    clients: int
    spread: torch.Tensor
    """Standard deviation of each channel."""
    seed: int

    def of(self, inputs: torch.Tensor, start: int) -> torch.Tensor:
        """The inputs `(n, channels, ...)` of the examples from number `start` on, as their owners see them."""
        owners = self.owners[start : start + len(inputs)]
        channel = np.arange(len(self.spread))
        gain = self.settings.gain * Stream.named(self.seed, "gain").normal(owners[:, None], channel)
        offset = self.settings.offset * Stream.named(self.seed, "offset").normal(owners[:, None], channel)
        scale = self.spread.reshape(1, -1, *[1] * (inputs.dim() - 2))
        seen = self._turned(inputs, owners) * _like(1 + gain, inputs) + _like(offset, inputs) * scale
        if not self.settings.noise:
            return seen
        level = ((owners + 1) / self.clients * self.settings.noise)[:, None]
        generator = torch.Generator().manual_seed(int(Stream.named(self.seed, "noise").seeds(start)))
        return seen + torch.randn(inputs.shape, generator=generator) * _like(level, inputs) * scale

    def _turned(self, inputs: torch.Tensor, owners: Rows) -> torch.Tensor:
        if not self.settings.rotation_deg:
            return inputs
        turn = 2 * Stream.named(self.seed, "rotation").uniform(owners) - 1
        angle = torch.from_numpy(np.deg2rad(turn * self.settings.rotation_deg)).float()
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).reshape(-1, 2, 3)
        grid = torch.nn.functional.affine_grid(matrix, list(inputs.shape), align_corners=False)
        return torch.nn.functional.grid_sample(inputs, grid, align_corners=False)


def _channel_spread(inputs: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each channel (dimension 1) over the training data."""
    return inputs.transpose(0, 1).reshape(inputs.shape[1], -1).std(dim=1, correction=0)


def _like(values: Floats, inputs: torch.Tensor) -> torch.Tensor:
    """`(n, channels)`, or `(n, 1)`, with as many dimensions as the inputs."""
    return torch.from_numpy(values).float().reshape(*values.shape, *[1] * (inputs.dim() - 2))
