"""Layers of many clients at once: client k's weights meet client k's examples, and no other's.

Activations are `(clients, batch, *shape)`; weights `(clients, *shape of the layer's)`, views into the stack of flat
models. Each layer has its forward pass, its backward pass (Rumelhart et al. 1986) and, apart from it, the sum of its
weights' gradients, so that a private step can clip between the two (Bu et al. 2022, arXiv:2210.00038: book-keeping).

A rectifier after a layer with weights is folded into it: the layer rectifies its output, and whoever receives that
output as input masks the gradient it hands back. That saves reading and writing every activation twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from simulations.engines.cuda import convolutions, pools, products
from simulations.engines.cuda.randomness import Randomness

Tensor = torch.Tensor
Saved = tuple[Any, ...]  # each layer keeps what it likes
"""What a forward pass keeps for the backward pass; its input comes first."""


class Layer(Protocol):
    """One step of the chain."""

    @property
    def names(self) -> Sequence[str]:
        """The parameters it trains, as the layout names them."""
        ...

    def forward(self, weights: Sequence[Tensor], x: Tensor, randomness: Randomness | None) -> tuple[Tensor, Saved]:
        """Output, and what to keep. Without randomness it predicts: dropout is off."""
        ...

    def backward(self, weights: Sequence[Tensor], saved: Saved, dy: Tensor) -> Tensor:
        """The gradient of the input."""
        ...

    def accumulate(self, targets: Sequence[Tensor], saved: Saved, dy: Tensor) -> None:
        """Adds the weights' gradients, summed over the batch, to the targets, in place."""
        ...

    def squared_norms(self, saved: Saved, dy: Tensor) -> Tensor:
        """Of each example's own gradient of the weights, `(clients, batch)`."""
        ...

    def finish(
        self, weights: Sequence[Tensor], targets: Sequence[Tensor], saved: Saved, dy: Tensor, *, is_first: bool
    ) -> Tensor:
        """`backward`, then `accumulate`; targets may be the weights themselves. The first layer's input needs none."""
        ...


@dataclass
class _Plain:
    """A layer without weights of its own."""

    names: Sequence[str] = ()

    def accumulate(self, targets: Sequence[Tensor], saved: Saved, dy: Tensor) -> None: ...

    def squared_norms(self, saved: Saved, dy: Tensor) -> Tensor:
        return dy.new_zeros(dy.shape[:2])

    def backward(self, weights: Sequence[Tensor], saved: Saved, dy: Tensor) -> Tensor:
        raise NotImplementedError

    def finish(
        self, weights: Sequence[Tensor], targets: Sequence[Tensor], saved: Saved, dy: Tensor, *, is_first: bool
    ) -> Tensor:
        return dy if is_first else self.backward(weights, saved, dy)


@dataclass
class Dense(_Plain):
    """`y = x W^T + b`, perhaps rectified."""

    has_bias: bool = True
    rectifies: bool = False
    input_is_rectified: bool = False

    def forward(self, weights: Sequence[Tensor], x: Tensor, randomness: Randomness | None) -> tuple[Tensor, Saved]:
        bias = weights[1] if self.has_bias else None
        return products.forward(x, weights[0], bias, rectify=self.rectifies), (x,)

    def backward(self, weights: Sequence[Tensor], saved: Saved, dy: Tensor) -> Tensor:
        return _masked(torch.bmm(dy, weights[0]), saved[0], self.input_is_rectified)

    def accumulate(self, targets: Sequence[Tensor], saved: Saved, dy: Tensor) -> None:
        targets[0].baddbmm_(dy.mT, saved[0])
        if self.has_bias:
            targets[1].add_(dy.sum(dim=1))

    def squared_norms(self, saved: Saved, dy: Tensor) -> Tensor:
        # An example's gradient is an outer product: its norm is the product of the norms.
        x: Tensor = saved[0]
        return dy.square().sum(dim=2) * (x.square().sum(dim=2) + self.has_bias)

    def finish(
        self, weights: Sequence[Tensor], targets: Sequence[Tensor], saved: Saved, dy: Tensor, *, is_first: bool
    ) -> Tensor:
        return products.finish(weights[0], targets, saved[0], dy, mask=self.input_is_rectified, is_first=is_first)


@dataclass
class Convolution(_Plain):
    """Over one or two dimensions, as torch's: `kernel`, `stride`, `padding` and `dilation` are pairs."""

    geometry: convolutions.Geometry = field(default_factory=convolutions.Geometry)
    has_bias: bool = True
    rectifies: bool = False
    input_is_rectified: bool = False

    def forward(self, weights: Sequence[Tensor], x: Tensor, randomness: Randomness | None) -> tuple[Tensor, Saved]:
        bias = weights[1] if self.has_bias else None
        return convolutions.forward(self.geometry, x, weights[0], bias, rectify=self.rectifies), (x,)

    def backward(self, weights: Sequence[Tensor], saved: Saved, dy: Tensor) -> Tensor:
        return convolutions.input_gradient(self.geometry, saved[0], weights[0], dy, mask=self.input_is_rectified)

    def accumulate(self, targets: Sequence[Tensor], saved: Saved, dy: Tensor) -> None:
        convolutions.add_weight_gradient(self.geometry, saved[0], dy, targets)

    def squared_norms(self, saved: Saved, dy: Tensor) -> Tensor:
        # Each example is a client of its own: its gradient is smaller than its activations.
        x, signals = _examples(saved[0]), _examples(dy)
        own = convolutions.weights_like(self.geometry, x, signals, has_bias=self.has_bias)
        convolutions.add_weight_gradient(self.geometry, x, signals, own)
        norms = torch.stack([gradient.flatten(1).square().sum(dim=1) for gradient in own]).sum(dim=0)
        return norms.reshape(dy.shape[:2])

    def finish(
        self, weights: Sequence[Tensor], targets: Sequence[Tensor], saved: Saved, dy: Tensor, *, is_first: bool
    ) -> Tensor:
        dx = dy if is_first else self.backward(weights, saved, dy)
        self.accumulate(targets, saved, dy)
        return dx


@dataclass
class MaxPool(_Plain):
    """Maximum over windows, as torch's, of one or two dimensions."""

    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (0, 0)
    input_is_rectified: bool = False

    def forward(self, weights: Sequence[Tensor], x: Tensor, randomness: Randomness | None) -> tuple[Tensor, Saved]:
        y, winners = pools.forward(x, self.kernel, self.stride, self.padding)
        return y, (x, y, winners)

    def backward(self, weights: Sequence[Tensor], saved: Saved, dy: Tensor) -> Tensor:
        x, y, winners = saved
        window = self.kernel, self.stride, self.padding
        return pools.backward(x, y, winners, dy, *window, is_rectified=self.input_is_rectified)


@dataclass
class Dropout(_Plain):
    """Keeps each number with probability `1 - p`, scaled so that the mean stays (Srivastava et al. 2014)."""

    p: float = 0.5
    input_is_rectified: bool = False

    def forward(self, weights: Sequence[Tensor], x: Tensor, randomness: Randomness | None) -> tuple[Tensor, Saved]:
        if randomness is None or self.p == 0:
            return x, (x, None)
        drop = randomness.dropout(x, self.p)
        return drop(x), (x, drop)

    def backward(self, weights: Sequence[Tensor], saved: Saved, dy: Tensor) -> Tensor:
        x, drop = saved
        return _masked(dy if drop is None else drop(dy), x, self.input_is_rectified)


@dataclass
class Rectifier(_Plain):
    """A ReLU that no layer before it could take in."""

    def forward(self, weights: Sequence[Tensor], x: Tensor, randomness: Randomness | None) -> tuple[Tensor, Saved]:
        return x.relu(), (x,)

    def backward(self, weights: Sequence[Tensor], saved: Saved, dy: Tensor) -> Tensor:
        return _masked(dy, saved[0], True)


@dataclass
class Flatten(_Plain):
    """All of an example in one row."""

    input_is_rectified: bool = False

    def forward(self, weights: Sequence[Tensor], x: Tensor, randomness: Randomness | None) -> tuple[Tensor, Saved]:
        return x.flatten(2), (x,)

    def backward(self, weights: Sequence[Tensor], saved: Saved, dy: Tensor) -> Tensor:
        return _masked(dy.reshape(saved[0].shape), saved[0], self.input_is_rectified)


def _masked(dx: Tensor, x: Tensor, is_rectified: bool) -> Tensor:
    return torch.ops.aten.threshold_backward(dx, x, 0) if is_rectified else dx


def _examples(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] * x.shape[1], 1, *x.shape[2:])
