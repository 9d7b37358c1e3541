"""Gives each client's inputs a look of their own: another gain and offset, more noise, another angle.

Applied once to the whole training data, since a partition gives each example to one client; test data stay as they are.
"""

from dataclasses import replace

import numpy as np
import torch

from simulations.keyed import Stream
from simulations.partitions.errors import ImpossiblePartitionError
from simulations.partitions.settings import FeatureShift
from simulations.partitions.shares import Shares
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
    owners = shares.owners()
    spread = _channel_spread(inputs)
    shifted = torch.empty_like(inputs)
    for start in range(0, len(inputs), _BLOCK):
        block = slice(start, start + _BLOCK)
        shifted[block] = _seen(inputs[block], owners[block], start, spread, settings, shares.clients, seed)
    return replace(problem, train=Data(shifted, problem.train.labels))


def _seen(
    inputs: torch.Tensor,
    owners: np.ndarray,
    start: int,
    spread: torch.Tensor,
    settings: FeatureShift,
    clients: int,
    seed: int,
) -> torch.Tensor:
    """Inputs `(n, channels, ...)` as their owners see them."""
    channel = np.arange(len(spread))
    gain = 1 + settings.gain * _broadcast(Stream.named(seed, "gain").normal(owners[:, None], channel), inputs)
    offset = settings.offset * _broadcast(Stream.named(seed, "offset").normal(owners[:, None], channel), inputs)
    scale = spread.reshape(1, -1, *[1] * (inputs.dim() - 2))
    seen = _turned(inputs, owners, settings, seed) * gain + offset * scale
    if settings.noise:
        generator = torch.Generator().manual_seed(int(Stream.named(seed, "noise").seeds(start)))
        level = torch.from_numpy((owners + 1) / clients * settings.noise).float()
        noise = torch.randn(inputs.shape, generator=generator)
        seen = seen + noise * level.reshape(-1, *[1] * (inputs.dim() - 1)) * scale
    return seen


def _turned(inputs: torch.Tensor, owners: np.ndarray, settings: FeatureShift, seed: int) -> torch.Tensor:
    if not settings.rotation_deg:
        return inputs
    turn = 2 * Stream.named(seed, "rotation").uniform(owners) - 1
    angle = torch.from_numpy(np.deg2rad(turn * settings.rotation_deg)).float()
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).reshape(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(matrix, list(inputs.shape), align_corners=False)
    return torch.nn.functional.grid_sample(inputs, grid, align_corners=False)


def _channel_spread(inputs: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each channel (dimension 1) over the training data."""
    return inputs.transpose(0, 1).reshape(inputs.shape[1], -1).std(dim=1, correction=0)


def _broadcast(values: np.ndarray, inputs: torch.Tensor) -> torch.Tensor:
    """`(n, channels)` to the inputs' number of dimensions."""
    return torch.from_numpy(values).float().reshape(*values.shape, *[1] * (inputs.dim() - 2))
