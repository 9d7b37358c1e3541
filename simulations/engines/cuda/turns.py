"""Head and body in turns (FedRep) among stacked clients, each at a turn of its own: what stands still is put back."""

from collections.abc import Sequence

import torch

from edge_agent.training.algorithms.alternation import Alternation, Turn
from shared.layout import Layout

Tensor = torch.Tensor

_MOVED = {Turn.BODY: (True, False), Turn.HEAD: (False, True), Turn.BOTH: (True, True)}
"""Body and head."""


class Turns:
    """Memory that says who moves what in the present step; it stays where it is, so that steps can be captured.

    Args:
        alternation: Whose turn it is when.
        layout: Of the trained parameters.
        capacity: Clients at once.
        device: Where the models lie.
    """

    def __init__(self, alternation: Alternation, layout: Layout, capacity: int, device: torch.device) -> None:
        self._alternation = alternation
        self._part = torch.zeros(layout.size, dtype=torch.int64, device=device)
        """Of each parameter: 0 for the body, 1 for the head."""
        for name, part in layout.slices.items():
            self._part[part] = int(name in alternation.head)
        self.moving = torch.ones(capacity, 2, dtype=torch.bool, device=device)
        """Of each client, whether its body and its head move in this step."""
        self._taken = torch.zeros(capacity, 2, device=device)

    def planned(self, steps: Tensor) -> Tensor:
        """What moves in each step of clients that take so many steps, `(steps, clients, 2)`; nothing once they end."""
        plan = torch.zeros(int(steps.max()), len(steps), 2, dtype=torch.bool)
        for count in sorted(set(steps.tolist())):
            turns = [_MOVED[self._alternation.turn(step, steps=count)] for step in range(count)]
            plan[:count, steps == count] = torch.tensor(turns, dtype=torch.bool).reshape(count, 1, 2)
        return plan

    def begin(self) -> None:
        """A new round."""
        self._taken.zero_()

    def count(self, clients: int) -> None:
        """A step begins."""
        self._taken[:clients] += self.moving[:clients]

    def taken(self, clients: int) -> Tensor:
        """Steps in which each parameter moved, `(clients, parameters)`; 1 where it never did."""
        return self._taken[:clients, self._part].clamp(min=1)

    def put_back(self, values: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """What does not move in this step is again what it was before: `(clients, parameters)` each."""
        for now, then in zip(values, before, strict=True):
            torch.where(self.moving[: len(now), self._part], now, then, out=now)
