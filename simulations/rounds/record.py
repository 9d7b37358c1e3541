"""What is written down of a round, and of a run: columns of numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


@dataclass(frozen=True)
class RoundRecord:
    """One round. Not a number: nobody measured it in this round."""

    round: int
    """From 1; 0 is the model before the first round."""
    clients: int = 0
    """Took part."""
    rejected: int = 0
    """Of them, sent an update with NaN or infinity, which was left out."""
    examples: int = 0
    """Held by those who took part."""
    train_loss: float = float("nan")
    """Mean over the cohort of the loss in its steps."""
    update_norm: float = float("nan")
    """Mean L2 norm of the clients' updates."""
    test_loss: float = float("nan")
    test_accuracy: float = float("nan")
    seconds: float = float("nan")
    """On this machine's clock; the only column that differs when a run is repeated."""


COLUMNS = tuple(field.name for field in fields(RoundRecord))
WHOLE_COLUMNS = ("seed", "round", "clients", "rejected", "examples")
CLOCK_COLUMNS = ("seconds",)


class Records:
    """Rounds so far, as columns."""

    def __init__(self, columns: Mapping[str, Column] | None = None) -> None:
        self._rows: list[RoundRecord] = []
        if columns is not None:
            kinds = [int if name in WHOLE_COLUMNS else float for name in COLUMNS]
            for row in zip(*(columns[name] for name in COLUMNS), strict=True):
                # Any: whole numbers and others, as each column has them.
                values: list[Any] = [kind(value) for kind, value in zip(kinds, row, strict=True)]
                self._rows.append(RoundRecord(*values))

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, record: RoundRecord) -> None:
        self._rows.append(record)

    @property
    def last(self) -> RoundRecord:
        return self._rows[-1]

    def columns(self) -> dict[str, Column]:
        """Each column's numbers, `(rounds + 1,)`."""
        return {name: np.array([getattr(row, name) for row in self._rows], np.float64) for name in COLUMNS}
