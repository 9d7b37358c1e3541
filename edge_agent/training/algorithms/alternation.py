"""Head and body of a model, trained in turns: the client's half of FedRep, Collins et al. 2021 (arXiv:2102.07078).

Algorithm 1 takes steps on the client's own head while the shared body stands still, then steps on the body while the
head does. What stands still is not stepped at all: neither weight decay nor momentum moves it, and Adam does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Turn(StrEnum):
    """What a step moves."""

    HEAD = "head"
    BODY = "body"
    BOTH = "both"


@dataclass(frozen=True)
class Alternation:
    """First the head, then the body, in every round."""

    head: tuple[str, ...]
    """Names of its parameters."""
    head_share: float
    """Of a round's steps that are the head's, rounded; each gets one at least."""

    def turn(self, step: int, *, steps: int) -> Turn:
        """Whose step this is, counted from 0, of so many. A round of one step has no turns: it moves both.

        >>> [Alternation(("head",), 0.6).turn(step, steps=5).value for step in range(5)]
        ['head', 'head', 'head', 'body', 'body']
        """
        if steps == 1:
            return Turn.BOTH
        own = min(max(round(self.head_share * steps), 1), steps - 1)
        return Turn.HEAD if step < own else Turn.BODY

    def moving(self, names: Sequence[str], turn: Turn) -> tuple[int, ...]:
        """Places of the parameters that such a step moves."""
        wanted = {Turn.HEAD: (True,), Turn.BODY: (False,), Turn.BOTH: (True, False)}[turn]
        return tuple(place for place, name in enumerate(names) if (name in self.head) in wanted)
