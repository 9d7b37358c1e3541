"""Dense layers of many clients at once: `(clients, batch, in)` by `(clients, out, in)`."""

from collections.abc import Sequence
from types import ModuleType

import torch

Tensor = torch.Tensor


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *, rectify: bool) -> Tensor:
    """`x W^T + b`, perhaps rectified, `(clients, batch, out)`."""
    if x.is_cuda:
        result: Tensor = _kernels().forward(x, weight, bias, rectify=rectify)
        return result
    y = torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)
    return y.relu_() if rectify else y


def finish(weight: Tensor, targets: Sequence[Tensor], x: Tensor, dy: Tensor, *, mask: bool, is_first: bool) -> Tensor:
    """The gradient of x (of nothing, if this is the first layer); adds those of weight and bias to the targets.

    The target may be the weight itself: the gradient of x is that of the weight as it was.
    """
    if x.is_cuda:
        result: Tensor = _kernels().finish(weight, targets, x, dy, mask=mask, is_first=is_first)
        return result
    dx = dy if is_first else torch.bmm(dy, weight)
    targets[0].baddbmm_(dy.mT, x)
    for bias in targets[1:]:
        bias.add_(dy.sum(dim=1))
    return dx.mul_(x > 0) if mask and not is_first else dx


def _kernels() -> ModuleType:
    from simulations.engines.cuda.kernels import dense  # Triton comes with CUDA builds of torch only

    return dense
