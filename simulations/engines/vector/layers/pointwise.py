"""Layers without parameters: activations, pooling, dropout, flattening."""

import math

import torch

from simulations.engines.vector.layers.convolution import Window, channels_first, channels_last
from simulations.engines.vector.layers.layer import Bare, Run

_ops = torch.ops.aten


class Relu(Bare):
    """In place: what comes in is another layer's output, which nobody else reads."""

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        self._outputs = torch.relu_(inputs)
        return self._outputs

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        through: torch.Tensor = _ops.threshold_backward(slopes, self._outputs, 0)
        return through


class Tanh(Bare):
    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        self._outputs = torch.tanh(inputs)
        return self._outputs

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        through: torch.Tensor = _ops.tanh_backward(slopes, self._outputs)
        return through


class Sigmoid(Bare):
    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        self._outputs = torch.sigmoid(inputs)
        return self._outputs

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        through: torch.Tensor = _ops.sigmoid_backward(slopes, self._outputs)
        return through


class MaxPool(Bare):
    """The largest of each window, channels last: several times as fast as torch's channels-first kernel."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        window = self._window
        self._inputs = channels_first(inputs.flatten(0, 1))
        outputs, self._indices = _ops.max_pool2d_with_indices(
            self._inputs, window.kernel, window.stride, window.padding, window.dilation
        )
        images = channels_last(outputs)
        return images.view(*inputs.shape[:2], *images.shape[1:])

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        window = self._window
        through = _ops.max_pool2d_with_indices_backward(
            channels_first(slopes.flatten(0, 1)),
            self._inputs,
            window.kernel,
            window.stride,
            window.padding,
            window.dilation,
            False,
            self._indices,
        )
        images = channels_last(through)
        return images.view(*slopes.shape[:2], *images.shape[1:])


class Flatten(Bare):
    """Into the module's order, channels first."""

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        self._shape = inputs.shape
        if inputs.dim() == 3:
            return inputs
        return inputs.permute(0, 1, 4, 2, 3).reshape(*inputs.shape[:2], -1)

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        if len(self._shape) == 3:
            return slopes
        active, batch, height, width, channels = self._shape
        return slopes.view(active, batch, channels, height, width).permute(0, 1, 3, 4, 2).contiguous()


class Dropout(Bare):
    """Each client draws from its own generator, in the module's order of numbers: the very draws of the reference."""

    def __init__(self, rate: float) -> None:
        self._kept = 1 - rate

    def begin(self, run: Run) -> None:
        self._run = run

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        self._scale = torch.stack([self._drawn(inputs[client], client, step) for client in range(len(inputs))])
        return inputs * self._scale

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        return slopes * self._scale

    def _drawn(self, inputs: torch.Tensor, client: int, step: int) -> torch.Tensor:
        """For one client's real examples, `(batch, ...)`: 0 or what keeps the mean."""
        block, draws = self._run.block, self._run.draws[client]
        real = int(block.counts[client, step])
        scale = torch.zeros(len(inputs), math.prod(inputs.shape[1:]))
        if self._kept > 0:
            scale[:real].bernoulli_(self._kept, generator=draws).div_(self._kept)
        if inputs.dim() == 2:
            return scale
        height, width, channels = inputs.shape[1:]
        return scale.view(-1, channels, height, width).permute(0, 2, 3, 1)
