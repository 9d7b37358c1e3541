"""Small models by name, for data that bring none. Every layer has per-example gradients."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from simulations.datasets.errors import DatasetError
from simulations.datasets.settings import Cnn, Conv1d, Linear, Mlp, Model


def model_for(shape: tuple[int, ...]) -> Model:
    """What is used where nothing is said: a 2NN for vectors, convolutions for windows and images."""
    match shape:
        case (_, _):
            return Conv1d()
        case (_, _, _):
            return Cnn()
        case _:
            return Mlp()


def build(settings: Model, *, shape: tuple[int, ...], classes: int) -> Callable[[int], nn.Module]:
    """A function of a seed; the same seed gives the same weights.

    Raises:
        DatasetError: The model is not for inputs of this shape.
    """
    needed = {"cnn": 3, "conv1d": 2}.get(settings.kind)
    if needed is not None and len(shape) != needed:
        raise DatasetError(
            f"Expected inputs of {needed} dimensions for the model {settings.kind!r}, got the shape {shape}",
            hint='`model = { kind = "mlp" }` suits any shape.',
        )
    if isinstance(settings, Cnn) and min(shape[1:]) < 4:
        raise DatasetError(f"Expected images of 4 x 4 or more for the model 'cnn', got {shape[1]} x {shape[2]}")

    def model(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _layers(settings, shape, classes)

    return model


def _layers(settings: Model, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    match settings:
        case Linear():
            return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
        case Mlp(hidden=hidden):
            widths = (math.prod(shape), *hidden)
            dense = [(nn.Linear(*pair), nn.ReLU()) for pair in pairwise(widths)]
            return nn.Sequential(nn.Flatten(), *sum(dense, ()), nn.Linear(widths[-1], classes))
        case Cnn():
            return _cnn(shape, classes)
        case Conv1d(width=width):
            return _conv1d(shape, classes, width)


def _cnn(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    channels, height, width = shape
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(64 * (height // 4) * (width // 4), 512), nn.ReLU()),
        nn.Linear(512, classes),
    )


def _conv1d(shape: tuple[int, ...], classes: int, width: int) -> nn.Sequential:
    def block(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
        return nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(8, outputs), nn.ReLU()

    return nn.Sequential(
        *block(shape[0], width, 7),
        *block(width, width, 5),
        *block(width, 2 * width, 5),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        nn.Linear(2 * width, classes),
    )
