"""SGD whose gradients get what a client algorithm adds: after clipping and noise, just before each step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Terms:
    """`proximal * (w - start) + linear`, flat over the trained parameters in their order."""

    start: torch.Tensor
    """`(parameters,)`."""
    proximal: float = 0.0
    linear: torch.Tensor | None = None

    def of(self, weights: torch.Tensor) -> torch.Tensor:
        """What is added to the gradient at these weights, `(parameters,)`."""
        pulled = self.proximal * (weights - self.start)
        return pulled if self.linear is None else pulled + self.linear


def local_sgd(
    parameters: Sequence[torch.nn.Parameter], *, learning_rate: float, terms: Terms | None = None
) -> torch.optim.SGD:
    """Plain SGD over the parameters, with the terms where there are any.

    A wrapper such as Opacus' clips and noises first, then calls this optimizer's step, which adds the terms.
    """
    optimizer = torch.optim.SGD(parameters, lr=learning_rate)
    if terms is not None and (terms.proximal or terms.linear is not None):
        optimizer.register_step_pre_hook(lambda *_: _add(terms, parameters))
    return optimizer


def _add(terms: Terms, parameters: Sequence[torch.nn.Parameter]) -> None:
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    parts = torch.split(terms.of(weights), [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        assert parameter.grad is not None, "Every trained parameter has a gradient at a step."
        parameter.grad.add_(part.view_as(parameter))
