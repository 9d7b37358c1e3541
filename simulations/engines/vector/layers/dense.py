"""Dense layers whose weights have a copy for each client: batched products over the block."""

import torch

from edge_agent.training.clipping.products import squared_norms
from simulations.engines.vector.layers.layer import Owning
from simulations.engines.vector.layers.parameter import Parameter, Place


class Dense(Owning):
    """`x W' + b` for each client's own W `(out, in)` and b."""

    def __init__(self, weight: Place, bias: Place | None) -> None:
        self._weight = Parameter(weight)
        self._bias = None if bias is None else Parameter(bias)
        super().__init__([self._weight] if self._bias is None else [self._weight, self._bias])
        self._inputs = self._slopes = torch.empty(0)

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        self._inputs, active = inputs, inputs.shape[0]
        weights = self._weight.values[:active].transpose(1, 2)
        if self._bias is None:
            return torch.bmm(inputs, weights)
        return torch.baddbmm(self._bias.values[:active, None], inputs, weights)

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        self._slopes = slopes
        return torch.bmm(slopes, self._weight.values[: slopes.shape[0]]) if wants_inputs else slopes

    def square_norms(self) -> torch.Tensor:
        return squared_norms(self._inputs, self._slopes, with_bias=self._bias is not None)

    def gradient(self, factors: torch.Tensor | None) -> None:
        slopes = self._slopes if factors is None else self._slopes * factors[:, :, None]
        self._weight.add_product(slopes.transpose(1, 2), self._inputs)
        if self._bias is not None:
            self._bias.add(slopes.sum(dim=1), client=slice(slopes.shape[0]))
