"""Convolutions of many clients at once, over one or two dimensions: `(clients, batch, channels, [height,] width)`.

On a GPU, implicit matrix products (`kernels/convolution.py`): cuDNN's grouped convolutions, which say the same, are
slow in fp32. Elsewhere, columns and one batched product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch.nn import functional

Tensor = torch.Tensor


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over its input; pairs are (height, width), and one dimension is a height of 1."""

    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output."""
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        height, width = (
            (extent + 2 * p - r) // s + 1
            for extent, p, r, s in zip(size, self.padding, reach, self.stride, strict=True)
        )
        return height, width


def forward(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, *, rectify: bool) -> Tensor:
    """`(clients, batch, out, ...)` of x `(clients, batch, in, ...)` and weight `(clients, out, in, ...)`."""
    if x.is_cuda:
        result: Tensor = _kernels().forward(geometry, x, weight, bias, rectify=rectify)
        return result
    columns = _columns(geometry, x)
    y = torch.matmul(weight.flatten(2)[:, None], columns)
    if bias is not None:
        y += bias[:, None, :, None]
    y = y.relu_() if rectify else y
    return y.reshape(*y.shape[:3], *_spatial(geometry, x))


def input_gradient(geometry: Geometry, x: Tensor, weight: Tensor, dy: Tensor, *, mask: bool) -> Tensor:
    """The gradient of x; with `mask`, zero where x is (it was rectified)."""
    if x.is_cuda:
        result: Tensor = _kernels().input_gradient(geometry, x, weight, dy, mask=mask)
        return result
    columns = torch.matmul(weight.flatten(2).mT[:, None], dy.flatten(3))
    size = _size(x)
    dx = functional.fold(columns.flatten(0, 1), size, *_unfolding(geometry)).reshape(x.shape)
    return dx.mul_(x > 0) if mask else dx


def add_weight_gradient(geometry: Geometry, x: Tensor, dy: Tensor, targets: Sequence[Tensor]) -> None:
    """Adds the gradients, summed over the batch, of weight `(clients, out, in, ...)` and, if there is one, bias."""
    if x.is_cuda:
        _kernels().add_weight_gradient(geometry, x, dy, targets)
        return
    signals = dy.flatten(3)
    weight = torch.matmul(signals, _columns(geometry, x).mT).sum(dim=1)
    targets[0].add_(weight.reshape(targets[0].shape))
    for bias in targets[1:]:
        bias.add_(signals.sum(dim=(1, 3)))


def weights_like(geometry: Geometry, x: Tensor, dy: Tensor, *, has_bias: bool) -> list[Tensor]:
    """Zeros in the shapes of weight and bias."""
    kernel = geometry.kernel if x.dim() == 5 else geometry.kernel[1:]
    weight = x.new_zeros(len(x), dy.shape[2], x.shape[2], *kernel)
    return [weight, x.new_zeros(len(x), dy.shape[2])] if has_bias else [weight]


def images(x: Tensor) -> Tensor:
    """All clients' examples as one batch of images, `(clients * batch, channels, height, width)`."""
    flat = x.flatten(0, 1)
    return flat if flat.dim() == 4 else flat[:, :, None]


def unflatten(flat: Tensor, like: Tensor) -> Tensor:
    """`images`, undone for the output of a layer whose input was `like`."""
    flat = flat if like.dim() == 5 else flat.squeeze(2)
    return flat.reshape(*like.shape[:2], *flat.shape[1:])


def _columns(geometry: Geometry, x: Tensor) -> Tensor:
    """`(clients, batch, in * taps, positions)`."""
    columns = functional.unfold(images(x), *_unfolding(geometry))
    return columns.reshape(*x.shape[:2], *columns.shape[1:])


def _unfolding(geometry: Geometry) -> tuple[tuple[int, int], ...]:
    return geometry.kernel, geometry.dilation, geometry.padding, geometry.stride


def _size(x: Tensor) -> tuple[int, int]:
    return (x.shape[-2] if x.dim() == 5 else 1), x.shape[-1]


def _spatial(geometry: Geometry, x: Tensor) -> tuple[int, ...]:
    height, width = geometry.output(_size(x))
    return (height, width) if x.dim() == 5 else (width,)


def _kernels() -> ModuleType:
    from simulations.engines.cuda.kernels import convolution  # Triton comes with CUDA builds of torch only

    return convolution
