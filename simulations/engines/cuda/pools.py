"""Maximum pooling of many clients at once, over one or two dimensions."""

from types import ModuleType

import torch
from torch.nn import functional

from simulations.engines.cuda.convolutions import images, unflatten

Tensor = torch.Tensor
Pair = tuple[int, int]


def forward(x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Tensor, Tensor]:
    """Pooled `(clients, batch, channels, ...)`, and which of each window won, for `backward`."""
    if x.is_cuda:
        result: tuple[Tensor, Tensor] = _kernels().forward(x, kernel, stride, padding)
        return result
    y, winners = functional.max_pool2d(images(x), kernel, stride, padding, return_indices=True)
    return unflatten(y, x), winners


def backward(
    x: Tensor,
    y: Tensor,
    winners: Tensor,
    dy: Tensor,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    *,
    is_rectified: bool,
) -> Tensor:
    """The gradient of x; zero where x is, if it was rectified."""
    if x.is_cuda:
        result: Tensor = _kernels().backward(x, y, winners, dy, kernel, stride, padding, is_rectified=is_rectified)
        return result
    dx: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        images(dy), images(x), kernel, stride, padding, (1, 1), False, winners
    ).reshape(x.shape)
    return dx.mul_(x > 0) if is_rectified else dx


def _kernels() -> ModuleType:
    from simulations.engines.cuda.kernels import pooling  # Triton comes with CUDA builds of torch only

    return pooling
