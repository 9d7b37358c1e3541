"""A model as a chain of stacked layers: what a `Sequential` of the usual modules becomes; other models are refused.

chain = Chain.of(model, layout)            # or UnsupportedModelError, with the reason
outputs, tape = chain.forward(weights, inputs, randomness)
chain.finish(weights, targets, tape, gradient_of_outputs)    # targets += gradients of the weights
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from shared.layout import Layout
from simulations.engines.cuda.convolutions import Geometry
from simulations.engines.cuda.layers import (
    Convolution,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    Rectifier,
    Saved,
)
from simulations.engines.cuda.randomness import Randomness
from simulations.engines.errors import UnsupportedModelError

Tensor = torch.Tensor
Weights = Mapping[str, Tensor]
"""Each layer's weights by name, `(clients, *shape)`: views of the stack."""
Tape = list[Saved]


@dataclass(frozen=True)
class Signal:
    """What a layer's weights need to know their gradients, before any sum over examples."""

    layer: Layer
    saved: Saved
    dy: Tensor


@dataclass(frozen=True)
class Chain:
    """Stacked layers, first to last."""

    layers: Sequence[Layer]

    @classmethod
    def of(cls, model: nn.Module, layout: Layout, inputs: Tensor) -> "Chain":
        """The chain of a model, which lies on the CPU; it is tried on some inputs, and must say what the model says.

        Raises:
            UnsupportedModelError: There is no chain that does.
        """
        layers: list[Layer] = []
        for name, module in _leaves(model):
            _append(layers, name, module)
        last = layers[-1] if layers else None
        if isinstance(last, Dense | Convolution) and last.rectifies:
            last.rectifies = False  # nobody after it would mask the gradient
            layers.append(Rectifier())
        trained = [name for layer in layers for name in layer.names]
        if trained != list(layout.names):
            raise UnsupportedModelError(f"Expected all parameters to be trained, in order, got {list(layout.names)}")
        chain = cls(layers)
        chain._expect_same(model, inputs)
        return chain

    def _expect_same(self, model: nn.Module, inputs: Tensor) -> None:
        weights = {name: value.detach()[None] for name, value in model.named_parameters()}
        with torch.no_grad():
            expected = model.eval()(inputs)
            try:
                outputs, _ = self.forward(weights, inputs[None], None)
            except RuntimeError as error:
                raise UnsupportedModelError(f"Expected layers whose shapes fit together, got: {error}") from error
        if outputs.shape[1:] != expected.shape or not torch.allclose(
            outputs[0], expected, rtol=1e-3, atol=1e-4, equal_nan=True
        ):
            raise UnsupportedModelError("Expected stacked layers to say what the model says, got something else")

    @property
    def first_trained(self) -> int:
        """The first layer with weights: no gradient is needed before it."""
        return next(number for number, layer in enumerate(self.layers) if layer.names)

    def forward(self, weights: Weights, x: Tensor, randomness: Randomness | None) -> tuple[Tensor, Tape]:
        """Outputs `(clients, batch, classes)`; without randomness as in evaluation."""
        tape: Tape = []
        for layer in self.layers:
            x, saved = layer.forward([weights[name] for name in layer.names], x, randomness)
            tape.append(saved)
        return x, tape

    def finish(self, weights: Weights, targets: Weights, tape: Tape, dy: Tensor) -> None:
        """Adds the gradients of the weights to the targets, which may be the weights themselves."""
        first = self.first_trained
        for number in range(len(self.layers) - 1, first - 1, -1):
            layer = self.layers[number]
            own = [weights[name] for name in layer.names]
            into = [targets[name] for name in layer.names]
            dy = layer.finish(own, into, tape[number], dy, is_first=number == first)

    def signals(self, weights: Weights, tape: Tape, dy: Tensor) -> list[Signal]:
        """The gradient at each trained layer's output, example by example."""
        signals = []
        first = self.first_trained
        for number in range(len(self.layers) - 1, first - 1, -1):
            layer = self.layers[number]
            if layer.names:
                signals.append(Signal(layer, tape[number], dy))
            if number > first:
                dy = layer.backward([weights[name] for name in layer.names], tape[number], dy)
        return signals


def _leaves(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The modules of nested Sequentials, in order, with the prefix of their parameters' names."""
    if not isinstance(model, nn.Sequential):
        return [(prefix, model)]
    return [leaf for name, child in model.named_children() for leaf in _leaves(child, f"{prefix}{name}.")]


def _append(layers: list[Layer], prefix: str, module: nn.Module) -> None:
    before = layers[-1] if layers else None
    match module:
        case nn.ReLU() if isinstance(before, Dense | Convolution) and not before.rectifies:
            before.rectifies = True
        case nn.ReLU():
            layers.append(Rectifier())
        case nn.Identity():
            pass
        case nn.Dropout():
            layers.append(Dropout(p=module.p, input_is_rectified=_rectifies(before)))
        case nn.Flatten(start_dim=1, end_dim=-1):
            layers.append(Flatten(input_is_rectified=_rectifies(before)))
        case nn.Linear():
            names = _names(prefix, module)
            layers.append(Dense(names, has_bias=len(names) == 2, input_is_rectified=_rectifies(before)))
        case nn.Conv1d() | nn.Conv2d():
            layers.append(_convolution(prefix, module, is_rectified=_rectifies(before)))
        case nn.MaxPool1d() | nn.MaxPool2d() if not module.ceil_mode and module.dilation in (1, (1, 1)):
            layers.append(_max_pool(module, is_rectified=_rectifies(before)))
        case _:
            raise UnsupportedModelError(f"Expected a Sequential of layers known to the stacked engine, got {module}")


def _convolution(prefix: str, module: nn.Conv1d | nn.Conv2d, *, is_rectified: bool) -> Convolution:
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise UnsupportedModelError(f"Expected a convolution without groups, padded by numbers of zeros, got {module}")
    names = _names(prefix, module)
    geometry = Geometry(
        _pair(module.kernel_size, 1), _pair(module.stride, 1), _pair(module.padding, 0), _pair(module.dilation, 1)
    )
    return Convolution(names, geometry, has_bias=len(names) == 2, input_is_rectified=is_rectified)


def _max_pool(module: nn.MaxPool1d | nn.MaxPool2d, *, is_rectified: bool) -> MaxPool:
    is_flat = isinstance(module, nn.MaxPool1d)
    kernel, stride, padding = (
        (other, value) if is_flat and isinstance(value, int) else _pair(value, other)
        for value, other in ((module.kernel_size, 1), (module.stride, 1), (module.padding, 0))
    )
    return MaxPool(kernel=kernel, stride=stride, padding=padding, input_is_rectified=is_rectified)


def _pair(value: int | tuple[int, ...], other: int) -> tuple[int, int]:
    """(height, width): a single number is both, a single dimension is the width beside `other`."""
    if isinstance(value, int):
        return value, value
    return (other, value[0]) if len(value) == 1 else (value[0], value[1])


def _names(prefix: str, module: nn.Module) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for name, parameter in module.named_parameters() if parameter.requires_grad)


def _rectifies(layer: Layer | None) -> bool:
    return isinstance(layer, Dense | Convolution) and layer.rectifies
