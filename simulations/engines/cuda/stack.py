"""The flat models of a block of clients, one row each, and what an optimizer keeps beside them."""

from types import ModuleType

import torch

from shared.layout import Layout

Tensor = torch.Tensor

_ALIGNMENT = 64
"""Rows begin at multiples of this many floats, so that vector loads of every client's weights are aligned."""


class Stack:
    """Rows of numbers for up to `capacity` clients, `(capacity, parameters)`, read whole or tensor by tensor."""

    def __init__(self, layout: Layout, capacity: int, device: torch.device) -> None:
        stride = -(-layout.size // _ALIGNMENT) * _ALIGNMENT
        self._layout = layout
        self.values = torch.zeros(capacity, stride, device=device)[:, : layout.size]

    def rows(self, clients: int) -> Tensor:
        """The first clients' rows, `(clients, parameters)`: a view."""
        return self.values[:clients]

    def views(self, clients: int) -> dict[str, Tensor]:
        """The first clients' tensors by name, `(clients, *shape)`: views."""
        rows = self.rows(clients)
        return {
            name: rows[:, part].view(clients, *shape)
            for (name, part), shape in zip(self._layout.slices.items(), self._layout.shapes, strict=True)
        }

    def set(self, source: Tensor) -> None:
        """Every row becomes source: `(parameters,)` for all, or a row for each."""
        if source.is_cuda:
            _kernels().set_rows(self.values, source)
        else:
            self.values.copy_(source)

    def subtract(self, clients: int, source: Tensor) -> Tensor:
        """The first clients' rows less source, in place."""
        rows = self.rows(clients)
        if source.is_cuda:
            _kernels().subtract_rows(rows, source)
        else:
            rows -= source
        return rows


def _kernels() -> ModuleType:
    from simulations.engines.cuda.kernels import rows  # Triton comes with CUDA builds of torch only

    return rows
