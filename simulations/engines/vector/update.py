"""Optimizer steps for many clients at once: the arithmetic of torch.optim on tensors with a row for each client."""

from collections.abc import Sequence

import torch

from simulations.engines.port import Adam, LocalTraining, Sgd

Tensors = Sequence[torch.Tensor]


class Update:
    """The steps of one block. The tensors of one call belong together, in the same order in every call.

    Args:
        local: How clients train.
        factor: Times the learning rate.
        start: Where training starts, for the proximal term; each broadcasts to its parameter.
        linear: Added to each gradient; each broadcasts to its parameter.
    """

    def __init__(self, local: LocalTraining, *, factor: float, start: Tensors, linear: Tensors | None) -> None:
        self._local = local
        self._rate = local.optimizer.learning_rate * factor
        self._start = start
        self._linear = linear
        self._step = 0
        self._first: list[torch.Tensor] = []
        self._second: list[torch.Tensor] = []

    def step(self, parameters: Tensors, gradients: Tensors, *, active: int) -> None:
        """Moves the first `active` rows of the parameters; the gradients may be overwritten."""
        self._step += 1
        values, slopes = [each[:active] for each in parameters], [each[:active] for each in gradients]
        self._add_terms(values, slopes, active)
        match self._local.optimizer:
            case Sgd(momentum=momentum):
                if momentum:
                    slopes = self._velocity(parameters, slopes, momentum, active)
                torch._foreach_add_(values, slopes, alpha=-self._rate)
            case Adam() as adam:
                self._adam(parameters, values, slopes, adam, active)

    def _add_terms(self, values: list[torch.Tensor], slopes: list[torch.Tensor], active: int) -> None:
        if self._local.proximal:
            moved = torch._foreach_sub(values, [_active(each, active) for each in self._start])
            torch._foreach_add_(slopes, moved, alpha=self._local.proximal)
        if self._linear is not None:
            torch._foreach_add_(
                slopes,
                [_active(each, active).expand_as(slope) for each, slope in zip(self._linear, slopes, strict=True)],
            )
        if self._local.optimizer.weight_decay:
            torch._foreach_add_(slopes, values, alpha=self._local.optimizer.weight_decay)

    def _velocity(
        self, parameters: Tensors, slopes: list[torch.Tensor], momentum: float, active: int
    ) -> list[torch.Tensor]:
        self._first = self._first or [torch.zeros_like(each) for each in parameters]
        velocities = [each[:active] for each in self._first]
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, slopes)
        return velocities

    def _adam(
        self, parameters: Tensors, values: list[torch.Tensor], slopes: list[torch.Tensor], adam: Adam, active: int
    ) -> None:
        self._first = self._first or [torch.zeros_like(each) for each in parameters]
        self._second = self._second or [torch.zeros_like(each) for each in parameters]
        first, second = [each[:active] for each in self._first], [each[:active] for each in self._second]
        torch._foreach_lerp_(first, slopes, 1 - adam.beta1)
        torch._foreach_mul_(second, adam.beta2)
        torch._foreach_addcmul_(second, slopes, slopes, 1 - adam.beta2)
        spread = torch._foreach_sqrt(second)
        torch._foreach_div_(spread, (1 - adam.beta2**self._step) ** 0.5)
        torch._foreach_add_(spread, adam.eps)
        torch._foreach_addcdiv_(values, first, spread, -self._rate / (1 - adam.beta1**self._step))


def _active(values: torch.Tensor, active: int) -> torch.Tensor:
    """The first rows, of tensors that have a row for each client; shared ones have one row for all."""
    return values if values.shape[0] == 1 else values[:active]
