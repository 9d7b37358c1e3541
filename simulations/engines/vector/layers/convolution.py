"""Convolutions, channels last, with weights of each client's own: one at a time by oneDNN, or all as one product.

One spatial dimension is a height of 1 with a kernel of height 1.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from simulations.engines.vector.layers.layer import Owning
from simulations.engines.vector.layers.parameter import Parameter, Place

_ops = torch.ops.aten


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image, (height, width) each."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)


class Convolution(Owning):
    """Shared by both ways: weights `(clients, out, height, width, in)`, bias `(clients, out)`."""

    def __init__(self, weight: Place, bias: Place | None, window: Window) -> None:
        self._weight = Parameter(weight)
        self._bias = None if bias is None else Parameter(bias)
        self._window = window
        super().__init__([self._weight] if self._bias is None else [self._weight, self._bias])


class OwnConvolution(Convolution):
    """For a block of one client: oneDNN's kernels, which do best on channels last."""

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        self._inputs = channels_first(inputs[0])
        bias = None if self._bias is None else self._bias.values[0]
        window = self._window
        outputs = _ops.convolution(
            self._inputs, self._kernel(), bias, window.stride, window.padding, window.dilation, False, (0, 0), 1
        )
        return channels_last(outputs)[None]

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        window = self._window
        by_inputs, self._by_weight, self._by_bias = _ops.convolution_backward(
            channels_first(slopes[0]),
            self._inputs,
            self._kernel(),
            [slopes.shape[-1]],
            window.stride,
            window.padding,
            window.dilation,
            False,
            (0, 0),
            1,
            (wants_inputs, True, self._bias is not None),
        )
        return channels_last(by_inputs)[None] if wants_inputs else slopes

    def square_norms(self) -> torch.Tensor | None:
        raise AssertionError("oneDNN sums over examples: private steps need the unfolded convolution")

    def gradient(self, factors: torch.Tensor | None) -> None:
        self._weight.add(channels_last(self._by_weight)[None], client=slice(1))
        if self._bias is not None:
            self._bias.add(self._by_bias[None], client=slice(1))

    def _kernel(self) -> torch.Tensor:
        return channels_first(self._weight.values[0])


class UnfoldedConvolution(Convolution):
    """For any block: the patches under the kernel become rows (im2col), and the convolution a batched product."""

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        active, batch = inputs.shape[:2]
        self._patches = self._unfolded(inputs)
        self._shape = (active, batch, *self._places, self._weight.values.shape[1])
        weights = self._weight.values[:active].flatten(2).transpose(1, 2)
        if self._bias is None:
            return torch.bmm(self._patches, weights).view(self._shape)
        return torch.baddbmm(self._bias.values[:active, None], self._patches, weights).view(self._shape)

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        active = slopes.shape[0]
        self._slopes = slopes.reshape(active, -1, slopes.shape[-1])
        if not wants_inputs:
            return slopes
        return self._folded(torch.bmm(self._slopes, self._weight.values[:active].flatten(2)))

    def square_norms(self) -> torch.Tensor:
        """Each example's gradient is made: of the small kernels that this way is for, it is small."""
        active, batch = self._shape[:2]
        slopes = self._slopes.view(active * batch, -1, self._slopes.shape[-1])
        patches = self._patches.view(active * batch, -1, self._patches.shape[-1])
        self._by_weight = torch.bmm(slopes.transpose(1, 2), patches).view(active, batch, -1)
        self._by_bias = slopes.sum(dim=1).view(active, batch, -1)
        squares: torch.Tensor = self._by_weight.square().sum(dim=2)
        return squares if self._bias is None else squares + self._by_bias.square().sum(dim=2)

    def gradient(self, factors: torch.Tensor | None) -> None:
        active = self._slopes.shape[0]
        if factors is None:
            self._weight.add_product(self._slopes.transpose(1, 2), self._patches)
            by_bias = self._slopes.sum(dim=1)
        else:
            by_weight = torch.bmm(factors[:, None], self._by_weight)
            self._weight.add(by_weight.view_as(self._weight.values[:active]), client=slice(active))
            by_bias = torch.bmm(factors[:, None], self._by_bias)[:, 0]
        if self._bias is not None:
            self._bias.add(by_bias, client=slice(active))

    def _unfolded(self, inputs: torch.Tensor) -> torch.Tensor:
        """Rows of patches, `(clients, batch * places, height * width * in)`."""
        window = self._window
        (top, left), channels = window.padding, inputs.shape[-1]
        padded = functional.pad(inputs, (0, 0, left, left, top, top)) if top or left else inputs.contiguous()
        self._padded = padded.shape
        self._places = self._outputs_extent()
        by_client, by_example, by_row, by_column, _ = padded.stride()
        sizes = (*padded.shape[:2], *self._places, *window.kernel, channels)
        strides = (
            by_client,
            by_example,
            by_row * window.stride[0],
            by_column * window.stride[1],
            by_row * window.dilation[0],
            by_column * window.dilation[1],
            1,
        )
        return padded.as_strided(sizes, strides).reshape(
            len(inputs), -1, window.kernel[0] * window.kernel[1] * channels
        )

    def _folded(self, patches: torch.Tensor) -> torch.Tensor:
        """The adjoint of unfolding: every patch is added where it was taken."""
        window, (rows, columns) = self._window, self._places
        folded = torch.zeros(self._padded)
        parts = patches.view(*self._padded[:2], rows, columns, *window.kernel, self._padded[-1])
        for row in range(window.kernel[0]):
            for column in range(window.kernel[1]):
                down = _taken(row * window.dilation[0], window.stride[0], rows)
                across = _taken(column * window.dilation[1], window.stride[1], columns)
                folded[:, :, down, across].add_(parts[:, :, :, :, row, column])
        top, left = window.padding
        return folded[:, :, top : self._padded[2] - top, left : self._padded[3] - left]

    def _outputs_extent(self) -> tuple[int, int]:
        window = self._window
        reach = [dilation * (kernel - 1) for dilation, kernel in zip(window.dilation, window.kernel, strict=True)]
        rows, columns = (
            (self._padded[2 + dimension] - reach[dimension] - 1) // window.stride[dimension] + 1 for dimension in (0, 1)
        )
        return rows, columns


def channels_first(values: torch.Tensor) -> torch.Tensor:
    """`(n, height, width, channels)` seen as torch's channels-last `(n, channels, height, width)`."""
    return values.permute(0, 3, 1, 2)


def channels_last(values: torch.Tensor) -> torch.Tensor:
    """The inverse; a copy only where a kernel answered in another layout."""
    return values.permute(0, 2, 3, 1).contiguous()


def _taken(start: int, stride: int, count: int) -> slice:
    return slice(start, start + stride * (count - 1) + 1, stride)
