"""Models whose architecture an experiment sets, and a sweep can search. Every layer has per-example gradients.

GroupNorm, never BatchNorm: a batch's statistics mix examples, and then no example has a gradient of its own.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal, assert_never

import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import nn

from simulations.experiments.errors import ExperimentError
from simulations.experiments.section import Section, short


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"expected an odd number, so that padding is the same on both sides, got {value}")
    return value


Widths = tuple[PositiveInt, ...]
Kernel = Annotated[PositiveInt, AfterValidator(_odd)]
Activation = Literal["relu", "gelu", "silu", "tanh"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Linear(Section):
    """Softmax regression."""

    kind: Literal["linear"] = "linear"


class Mlp(Section):
    """Dense layers; two of 200 are McMahan et al. 2017's 2NN."""

    kind: Literal["mlp"] = "mlp"
    hidden: Widths = (200, 200)
    """Width of each hidden layer."""
    activation: Activation = "relu"


class Cnn(Section):
    """For images `(channels, height, width)`: convolutions, each pooled by two, then dense layers.

    The default is McMahan et al. 2017's.
    """

    kind: Literal["cnn"] = "cnn"
    channels: Widths = Field(default=(32, 64), min_length=1)
    """Of each convolution."""
    kernel: Kernel = 5
    groups: PositiveInt | None = None
    """GroupNorm with so many groups after each convolution; divides each number of channels."""
    dense: Widths = (512,)
    """Width of each hidden layer after the convolutions."""
    activation: Activation = "relu"


class Conv1d(Section):
    """For windows of sensors `(channels, length)`: pooled convolutions, then dense layers on their mean over time."""

    kind: Literal["conv1d"] = "conv1d"
    channels: Widths = Field(default=(24, 32, 48), min_length=1)
    """Of each convolution."""
    kernel: Kernel = 5
    groups: PositiveInt | None = 8
    """GroupNorm with so many groups after each convolution; divides each number of channels."""
    dense: Widths = ()
    """Width of each hidden layer after the convolutions."""
    activation: Activation = "relu"


Model = Annotated[Linear | Mlp | Cnn | Conv1d, Field(discriminator="kind"), short("kind")]


def model_for(shape: tuple[int, ...]) -> Linear | Mlp | Cnn | Conv1d:
    """What is used where nothing is said: a 2NN for vectors, convolutions for windows and images."""
    match shape:
        case (_, _):
            return Conv1d()
        case (_, _, _):
            return Cnn()
        case _:
            return Mlp()


def build(settings: Linear | Mlp | Cnn | Conv1d, *, shape: tuple[int, ...], classes: int) -> Callable[[int], nn.Module]:
    """A function of a seed; the same seed gives the same weights.

    Raises:
        ExperimentError: The model is not for examples of this shape.
    """
    _check(settings, shape)

    def model(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(*_layers(settings, shape, classes))

    return model


def _layers(settings: Linear | Mlp | Cnn | Conv1d, shape: tuple[int, ...], classes: int) -> list[nn.Module]:
    match settings:
        case Linear():
            return [nn.Flatten(), *_dense((math.prod(shape), classes), "relu")]
        case Mlp(hidden=hidden, activation=activation):
            return [nn.Flatten(), *_dense((math.prod(shape), *hidden, classes), activation)]
        case Cnn(dense=dense, activation=activation):
            extent = math.prod(size >> len(settings.channels) for size in shape[1:])
            features = settings.channels[-1] * extent
            return [
                *_convolutions(settings, shape[0], nn.Conv2d, nn.MaxPool2d),
                nn.Flatten(),
                *_dense((features, *dense, classes), activation),
            ]
        case Conv1d(dense=dense, activation=activation):
            return [
                *_convolutions(settings, shape[0], nn.Conv1d, nn.MaxPool1d),
                *(nn.AdaptiveAvgPool1d(1), nn.Flatten()),
                *_dense((settings.channels[-1], *dense, classes), activation),
            ]
        case _:
            assert_never(settings)


def _dense(widths: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Linear layers of these widths, an activation between two."""
    layers: list[nn.Module] = []
    for pair in pairwise(widths):
        layers += [nn.Linear(*pair), _ACTIVATIONS[activation]()]
    return layers[:-1]


def _convolutions(
    settings: Cnn | Conv1d,
    channels: int,
    convolution: type[nn.Conv1d] | type[nn.Conv2d],
    pool: type[nn.MaxPool1d] | type[nn.MaxPool2d],
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((channels, *settings.channels)):
        layers.append(convolution(inputs, outputs, settings.kernel, padding=settings.kernel // 2))
        if settings.groups is not None:
            layers.append(nn.GroupNorm(settings.groups, outputs))
        layers += [_ACTIVATIONS[settings.activation](), pool(2)]
    return layers


def _check(settings: Linear | Mlp | Cnn | Conv1d, shape: tuple[int, ...]) -> None:
    if not isinstance(settings, Cnn | Conv1d):
        return
    dimensions = 3 if isinstance(settings, Cnn) else 2
    if len(shape) != dimensions:
        raise ExperimentError.at(
            ("model", "kind"),
            f"Expected examples of {dimensions} dimensions for the model {settings.kind!r}, got the shape {shape}",
            hint=f"model = {model_for(shape).kind!r} suits them.",
        )
    if min(shape[1:]) >> len(settings.channels) == 0:
        raise ExperimentError.at(
            ("model", "channels"),
            f"Expected examples that can be halved {len(settings.channels)} times, got the shape {shape}",
            hint="Use fewer convolutions.",
        )
    if settings.groups and any(channels % settings.groups for channels in settings.channels):
        raise ExperimentError.at(
            ("model", "groups"), f"Expected a divisor of {list(settings.channels)}, got {settings.groups}"
        )
