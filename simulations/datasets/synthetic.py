"""Data made from a seed: each class a pattern, each example the pattern, moved a little, and noise.

Vectors are clusters; windows are sums of two sine waves in each channel with a phase of the example's own; images are
smooth blots that are shifted. Each source (group) has a gain and an offset of its own.
"""

import math

import torch
from torch.nn.functional import interpolate

from simulations.datasets.raw import Raw
from simulations.datasets.settings import SyntheticData
from simulations.problem import Data

_GROUP_SPREAD = 0.3


def make(settings: SyntheticData, *, seed: int) -> Raw:
    """The same settings and seed make the same data."""
    generator = torch.Generator().manual_seed(seed)
    patterns = _patterns(settings, generator)
    groups = torch.arange(settings.examples) % (settings.groups or 1)
    train = _examples(settings, patterns, groups, generator)
    # Sources that nobody has trained with: what is learned must carry over to other people and machines.
    unseen = torch.arange(settings.test_examples) % (settings.groups or 1)
    test = _examples(settings, patterns, unseen, generator)
    name = f"synthetic {'x'.join(map(str, settings.shape))}"
    return Raw(name, train, test, settings.classes, groups if settings.groups else None)


def _patterns(settings: SyntheticData, generator: torch.Generator) -> torch.Tensor:
    """One for each class; of windows, frequencies and amplitudes instead."""
    match settings.shape:
        case (_, _):
            return torch.rand(settings.classes, settings.shape[0], 2, 2, generator=generator)
        case (channels, height, width):
            coarse = torch.randn(settings.classes, channels, 4, 4, generator=generator)
            return interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        case _:
            return torch.randn(settings.classes, *settings.shape, generator=generator)


def _examples(
    settings: SyntheticData, patterns: torch.Tensor, groups: torch.Tensor, generator: torch.Generator
) -> Data:
    labels = torch.randint(settings.classes, (len(groups),), generator=generator)
    match settings.shape:
        case (_, length):
            clean = _waves(patterns[labels], length, generator)
        case (_, height, width):
            clean = _moved(patterns[labels], height, width, generator)
        case _:
            clean = patterns[labels]
    inputs = clean + settings.noise * torch.randn(clean.shape, generator=generator)
    if settings.groups:
        of_channel = (settings.groups, settings.shape[0], *[1] * (len(settings.shape) - 1))
        gain = 1 + _GROUP_SPREAD * torch.randn(of_channel, generator=generator)
        offset = _GROUP_SPREAD * torch.randn(of_channel, generator=generator)
        inputs = inputs * gain[groups] + offset[groups]
    return Data(inputs.contiguous(), labels)


def _waves(patterns: torch.Tensor, length: int, generator: torch.Generator) -> torch.Tensor:
    """`(n, channels, length)` from `(n, channels, 2 waves, frequency and amplitude)`."""
    time = torch.linspace(0, 1, length)
    cycles = 1 + 7 * patterns[..., 0, None]
    phase = torch.rand(*cycles.shape, generator=generator)
    return (2 * patterns[..., 1, None] * torch.sin(2 * math.pi * (cycles * time + phase))).sum(dim=2)


def _moved(images: torch.Tensor, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Each image shifted by up to an eighth of its size, around the edge."""
    down = torch.randint(-(height // 8), height // 8 + 1, (len(images), 1), generator=generator)
    right = torch.randint(-(width // 8), width // 8 + 1, (len(images), 1), generator=generator)
    rows = ((torch.arange(height) - down) % height)[:, None, :, None]
    columns = ((torch.arange(width) - right) % width)[:, None, None, :]
    example = torch.arange(len(images))[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return images[example, channel, rows, columns]
