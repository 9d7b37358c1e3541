"""Opacus' engine: hooks that materialise each example's gradient. Slower; it takes what book-keeping does not.

Also what ours is compared with.
"""

import warnings
from typing import cast

import torch
from opacus import GradSampleModule
from torch import nn

from edge_agent.training.clipping.contributions import Rows
from edge_agent.training.clipping.layers import refuse_unclippable
from edge_agent.training.clipping.port import MeanLoss
from edge_agent.training.clipping.products import clip_factors
from edge_agent.training.clipping.sums import Sums
from edge_agent.training.clipping.units import Units


class OpacusEngine:
    """The engine for one model, until `close`; as `BookKeeping`."""

    name = "opacus"

    def __init__(self, model: nn.Module, loss: MeanLoss, *, max_grad_norm: float, notes: tuple[str, ...] = ()) -> None:
        refuse_unclippable(model)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.notes = notes
        self._wrapped, self._loss, self._max_grad_norm = GradSampleModule(model), loss, max_grad_norm

    def clipped_sums(self, inputs: torch.Tensor, labels: torch.Tensor, units: Units, sums: Sums) -> None:
        if not units.sizes:
            sums.vector.zero_()
            return
        self._wrapped.zero_grad()
        with warnings.catch_warnings():
            # With frozen first layers no input needs a gradient; torch then warns about Opacus' hooks, which are right.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            self._loss(self._wrapped(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch
        rows = {p: Rows(_gradients(p, examples=len(inputs))) for p in sums.parameters}
        squared = torch.stack([part.squared_norms(units) for part in rows.values()]).sum(dim=0)
        weights = units.spread(clip_factors(squared, max_norm=self._max_grad_norm))
        for parameter, part in rows.items():
            part.sum_into(sums.of(parameter), weights)

    def close(self) -> None:
        self._wrapped.remove_hooks()


def _gradients(parameter: nn.Parameter, *, examples: int) -> torch.Tensor:
    """What the hooks left; a parameter without influence has none."""
    found = cast("torch.Tensor | list[torch.Tensor] | None", getattr(parameter, "grad_sample", None))
    if found is None:
        return parameter.new_zeros(examples, *parameter.shape)
    return found if isinstance(found, torch.Tensor) else torch.stack(found).sum(dim=0)
