"""Where clipped sums go: one flat vector, and a view of it for each trained parameter; made once, used every step.

The parameters can be made views of one vector in the same order, which an optimizer then moves in one stroke.
"""

from collections.abc import Sequence

import torch
from torch import nn


class Sums:
    """Room for one sum of gradients.

    Args:
        parameters: The trained ones, in an order that stays.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = tuple(parameters)
        self.vector = torch.zeros(sum(parameter.numel() for parameter in self.parameters), dtype=_dtype(parameters))
        parts = torch.split(self.vector, [parameter.numel() for parameter in self.parameters])
        self._views: dict[nn.Parameter, torch.Tensor] = {
            p: part.view(p.shape) for p, part in zip(self.parameters, parts, strict=True)
        }

    def of(self, parameter: nn.Parameter) -> torch.Tensor:
        """The parameter's part of the vector, in its shape."""
        return self._views[parameter]

    def weights(self) -> nn.Parameter:
        """The parameters as one vector, of which they become views; its gradient is `vector`."""
        whole = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in self.parameters]))
        parts = torch.split(whole.detach(), [parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.data = part.view(parameter.shape)
        whole.grad = self.vector
        return whole


def _dtype(parameters: Sequence[nn.Parameter]) -> torch.dtype:
    return parameters[0].dtype if parameters else torch.float32
