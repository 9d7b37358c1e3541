"""Synthetic examples, learnable and quick to make, that need no network: a smooth shape for each class, and noise."""

import os
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn import functional

from simulations.problem import Data

_NOISE_POOL = 4096
"""Noise images drawn; examples take them in turn, shifted. Drawing 150 million numbers would cost a second."""


def shapes_under_noise(examples: int, *, shape: tuple[int, ...], classes: int, signal: float, seed: int) -> Data:
    """Examples `(examples, *shape)` of evenly many classes, in random order.

    Args:
        examples: How many.
        shape: Channels first, then one or two dimensions, of an example.
        classes: How many; the shapes of the classes depend on `shape` and `classes` alone, not on the seed.
        signal: Spread of a class's shape, against the noise's 1: smaller is harder.
        seed: Of order and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples).remainder(classes)[torch.randperm(examples, generator=generator)]
    noise = torch.randn(min(examples, _NOISE_POOL), *shape, generator=generator)
    class_shapes = signal * _smooth_shapes(shape, classes)
    inputs = torch.empty(examples, *shape)

    def fill(start: int) -> None:
        part = inputs[start : start + _NOISE_POOL]
        torch.index_select(class_shapes, 0, labels[start : start + _NOISE_POOL], out=part)
        part += noise[: len(part)].roll(start // _NOISE_POOL, dims=-1)

    # Half a gigabyte is written for the first time, which is most of the work, and every core can.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, examples, _NOISE_POOL)))
    return Data(inputs, labels)


def _smooth_shapes(shape: tuple[int, ...], classes: int) -> torch.Tensor:
    """One random smooth field a class, mean square 1: a coarse random grid, interpolated."""
    channels, *extent = shape
    generator = torch.Generator().manual_seed(classes)
    coarse = torch.randn(classes, channels, *(max(2, size // 4) for size in extent), generator=generator)
    mode = "bilinear" if len(extent) == 2 else "linear"
    fields = functional.interpolate(coarse, size=tuple(extent), mode=mode, align_corners=True)
    spread: torch.Tensor = fields.flatten(1).std(dim=1)
    return fields / spread.reshape(-1, *[1] * len(shape))
