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
    asked: int = 0
    """Clients that were asked to train, over all tries at the round."""
    clients: int = 0
    """Of them, trained and answered in time."""
    late: int = 0
    """Answered too late, or from a model that was too old."""
    lost: int = 0
    """Never heard of again."""
    rejected: int = 0
    """Answered with NaN or infinity, which was left out."""
    examples: int = 0
    """Held by those who answered in time."""
    bytes_down: int = 0
    """To all who were asked."""
    bytes_up: int = 0
    """From all who answered, late or not."""
    clock_s: float = float("nan")
    """Virtual time at the round's end; NaN where rounds take none."""
    train_loss: float = float("nan")
    """Mean over the cohort of the loss in its steps."""
    update_norm: float = float("nan")
    """Mean L2 norm of the clients' updates."""
    test_loss: float = float("nan")
    test_accuracy: float = float("nan")
    personal_accuracy: float = float("nan")
    """Mean over clients of each one's own model on what it holds out; NaN where nothing is held out."""
    personal_accuracy_p10: float = float("nan")
    """A tenth of the clients have less."""
    attack_success: float = float("nan")
    """Share of triggered test examples that are taken for the backdoor's target."""
    example_epsilon: float = float("nan")
    """Spent so far of each example, with the client that took part most often; NaN without privacy."""
    user_epsilon: float = float("nan")
    """Spent so far of each client; NaN without privacy."""
    seconds: float = float("nan")
    """On this machine's clock; the only column that differs when a run is repeated."""


COLUMNS = tuple(field.name for field in fields(RoundRecord))
WHOLE_COLUMNS = ("seed", *(field.name for field in fields(RoundRecord) if field.type is int))
CLOCK_COLUMNS = ("seconds",)


class Records:
    """Rounds so far, as columns."""

    def __init__(self, columns: Mapping[str, Column] | None = None) -> None:
        self._rows: list[RoundRecord] = []
        if columns is not None:
            kinds = [int if name in WHOLE_COLUMNS else float for name in COLUMNS]
            # A checkpoint from before a column measured nothing of it.
            nothing = np.full(len(columns["round"]), np.nan)
            for row in zip(*(columns.get(name, nothing) for name in COLUMNS), strict=True):
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
