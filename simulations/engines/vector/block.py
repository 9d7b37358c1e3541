"""Some clients of an assignment, side by side and in step: what a kernel computes together."""

from dataclasses import dataclass

import torch

from simulations.engines.port import Assignment
from simulations.problem import Data


@dataclass(frozen=True)
class Block:
    """Clients ordered by steps, most first, so that those still training are always the first few.

    Padding is replaced by an example of the client's own, with weight 0: another client's could carry a NaN over.
    """

    positions: torch.Tensor
    """In the assignment, `(clients,)`."""
    rows: torch.Tensor
    """Of the training data, `(clients, steps, batch)`."""
    is_real: torch.Tensor
    """1 for an example, 0 for padding, `(clients, steps, batch)` float32."""
    counts: torch.Tensor
    """Real examples in each batch, `(clients, steps)` float32."""
    steps: torch.Tensor
    """`(clients,)`."""
    active: tuple[int, ...]
    """At each step, how many clients still train."""
    start: torch.Tensor
    """`(parameters,)` or `(clients, parameters)`."""
    linear: torch.Tensor | None
    """None, `(parameters,)` or `(clients, parameters)`."""
    seeds: tuple[int, ...]
    learning_rate_factor: float
    has_empty: bool
    """Whether a client has no example at all; the row that stands for its padding is another's."""

    def part(self, client: int) -> "Block":
        """The block of one of these clients alone."""
        one = slice(client, client + 1)
        return Block(
            positions=self.positions[one],
            rows=self.rows[one],
            is_real=self.is_real[one],
            counts=self.counts[one],
            steps=self.steps[one],
            active=tuple(min(1, max(0, active - client)) for active in self.active),
            start=self.start if self.start.dim() == 1 else self.start[one],
            linear=self.linear if self.linear is None or self.linear.dim() == 1 else self.linear[one],
            seeds=self.seeds[one],
            learning_rate_factor=self.learning_rate_factor,
            has_empty=self.has_empty,
        )

    def inputs(self, data: Data, rows: torch.Tensor) -> torch.Tensor:
        """These rows' inputs, flat, `(clients, n, features)`; rows are `(clients, n)`, of the first clients."""
        gathered = data.inputs.flatten(1).index_select(0, rows.flatten()).view(*rows.shape, -1)
        if self.has_empty:
            gathered[~self.is_real[: len(rows)].flatten(1).any(dim=1)] = 0
        return gathered

    @property
    def clients(self) -> int:
        return len(self.positions)

    @property
    def batch(self) -> int:
        return self.rows.shape[2]


def block_of(assignment: Assignment, positions: torch.Tensor) -> Block:
    """The block of the clients at `positions`, which are ordered by steps, most first."""
    steps = assignment.steps[positions]
    batches = assignment.batches[positions, : int(steps.max()) if len(steps) else 0]
    is_real = (batches >= 0) & (torch.arange(batches.shape[1]) < steps[:, None])[:, :, None]
    batches, is_real = _without_empty_columns(batches, is_real)
    return Block(
        positions=positions,
        rows=torch.where(is_real, batches, _first_real(batches, is_real)[:, None, None]),
        is_real=is_real.float(),
        counts=is_real.sum(dim=2).float(),
        steps=steps,
        active=tuple((steps[None] > torch.arange(batches.shape[1])[:, None]).sum(dim=1).tolist()),
        start=_rows_of(assignment.start, positions),
        linear=None if assignment.linear is None else _rows_of(assignment.linear, positions),
        seeds=tuple(assignment.seeds[positions].tolist()) if len(assignment.seeds) else (0,) * len(positions),
        learning_rate_factor=assignment.learning_rate_factor,
        has_empty=not bool(is_real.flatten(1).any(dim=1).all()),
    )


def _without_empty_columns(batches: torch.Tensor, is_real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Padding is at a batch's end: what all clients pad, none needs to compute. One column stays."""
    width = max(1, int(is_real.any(dim=0).any(dim=0).sum()))
    return batches[:, :, :width], is_real[:, :, :width]


def _first_real(batches: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
    """One row of each client's own, `(clients,)`; row 0 for a client that has none at all."""
    flat, real = batches.flatten(1), is_real.flatten(1)
    if flat.shape[1] == 0:
        return torch.zeros(len(flat), dtype=torch.int64)
    first = real.int().argmax(dim=1, keepdim=True)
    return flat.gather(1, first)[:, 0].clamp(min=0)


def _rows_of(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return values if values.dim() == 1 else values[positions]
