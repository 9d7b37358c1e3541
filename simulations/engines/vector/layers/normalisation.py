"""Normalisation that mixes no examples: GroupNorm, and BatchNorm whose statistics are frozen."""

import torch

from simulations.engines.vector.layers.convolution import channels_first, channels_last
from simulations.engines.vector.layers.layer import Owning
from simulations.engines.vector.layers.parameter import Parameter, Place

_ops = torch.ops.aten


class Scaling(Owning):
    """Each channel times the client's own weight, plus its bias; what was scaled is kept for the gradient."""

    def __init__(self, weight: Place | None, bias: Place | None) -> None:
        self._weight = None if weight is None else Parameter(weight)
        self._bias = None if bias is None else Parameter(bias)
        super().__init__([parameter for parameter in (self._weight, self._bias) if parameter is not None])

    def _scaled(self, normal: torch.Tensor) -> torch.Tensor:
        self._normal = normal
        scaled = normal if self._weight is None else normal * _over(self._weight.values, normal)
        return scaled if self._bias is None else scaled + _over(self._bias.values, normal)

    def _unscaled(self, slopes: torch.Tensor) -> torch.Tensor:
        """Slopes by what was scaled; keeps each example's own gradient, `(clients, batch, channels)`."""
        places = tuple(range(2, slopes.dim() - 1))
        by_weight, by_bias = slopes * self._normal, slopes
        self._by_weight, self._by_bias = (each.sum(dim=places) if places else each for each in (by_weight, by_bias))
        return slopes if self._weight is None else slopes * _over(self._weight.values, slopes)

    def square_norms(self) -> torch.Tensor | None:
        weight = 0 if self._weight is None else self._by_weight.square().sum(dim=2)
        bias = 0 if self._bias is None else self._by_bias.square().sum(dim=2)
        return weight + bias if self.parameters else None  # type: ignore[return-value]  # parameters: not both are 0

    def gradient(self, factors: torch.Tensor | None) -> None:
        for parameter, examples in ((self._weight, self._by_weight), (self._bias, self._by_bias)):
            if parameter is not None:
                weighted = examples if factors is None else examples * factors[:, :, None]
                parameter.add(weighted.sum(dim=1), client=slice(examples.shape[0]))


class GroupNorm(Scaling):
    def __init__(self, weight: Place | None, bias: Place | None, *, groups: int, eps: float) -> None:
        super().__init__(weight, bias)
        self._groups, self._eps = groups, eps

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        self._inputs = _images(inputs)
        normal, self._mean, self._scale = _ops.native_group_norm(
            self._inputs, None, None, *self._sizes(), self._groups, self._eps
        )
        return self._scaled(channels_last(normal).view_as(inputs))

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        through, _, _ = _ops.native_group_norm_backward(
            _images(self._unscaled(slopes)),
            self._inputs,
            self._mean,
            self._scale,
            None,
            *self._sizes(),
            self._groups,
            (True, False, False),
        )
        return channels_last(through).view_as(slopes)

    def _sizes(self) -> tuple[int, int, int]:
        examples, channels, height, width = self._inputs.shape
        return examples, channels, height * width


class FrozenBatchNorm(Scaling):
    """By the running mean and variance, `(channels,)` each."""

    def __init__(
        self, weight: Place | None, bias: Place | None, *, mean: torch.Tensor, variance: torch.Tensor, eps: float
    ) -> None:
        super().__init__(weight, bias)
        self._mean, self._scale = mean, (variance + eps).rsqrt()

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        return self._scaled((inputs - self._mean) * self._scale)

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        return self._unscaled(slopes) * self._scale


def _images(values: torch.Tensor) -> torch.Tensor:
    """`(clients * batch, channels, height, width)`, whatever the activations' shape."""
    if values.dim() == 3:
        return values.flatten(0, 1)[:, :, None, None]
    return channels_first(values.flatten(0, 1))


def _over(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`(clients, channels)` to broadcast over the active clients' `(clients, batch, ..., channels)`."""
    return values[: like.shape[0]].view(like.shape[0], *[1] * (like.dim() - 2), -1)
