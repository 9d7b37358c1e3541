"""The mean loss of the starting model on each client's batches, for strategies that ask."""

import torch
from torch.func import functional_call

from simulations.engines.vector.block import Block
from simulations.problem import Problem

_TOGETHER = 1024
"""Examples in one pass."""


class StartLoss:
    """Evaluates the starting model, in evaluation mode.

    Args:
        problem: What is learned.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._model = problem.model(0).eval()
        trained = {name: each for name, each in self._model.named_parameters() if each.requires_grad}
        self._names, self._shapes = list(trained), [each.shape for each in trained.values()]

    def of(self, block: Block) -> torch.Tensor:
        """`(clients,)` float64; NaN for a client without examples."""
        is_real = block.is_real > 0
        counts = is_real.sum(dim=(1, 2))
        rows = block.rows[is_real]
        if block.start.dim() == 1:
            losses = self._losses(block.start, rows)
        else:
            of_each = zip(block.start, torch.split(rows, counts.tolist()), strict=True)
            losses = torch.cat([self._losses(start, own) for start, own in of_each])
        owner = torch.arange(block.clients).repeat_interleave(counts)
        return torch.zeros(block.clients, dtype=torch.float64).index_add_(0, owner, losses) / counts

    @torch.no_grad()
    def _losses(self, start: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Each row's loss, float64."""
        parts = torch.split(start, [shape.numel() for shape in self._shapes])
        values = {name: part.view(shape) for name, part, shape in zip(self._names, parts, self._shapes, strict=True)}
        data = self._problem.train
        losses = [
            self._problem.losses(functional_call(self._model, values, (data.inputs[some],)), data.labels[some])
            for some in torch.split(rows, _TOGETHER)
        ]
        return torch.cat(losses).double() if losses else torch.zeros(0, dtype=torch.float64)
