"""Who takes part in each round, and when: drawn at once, or found in virtual time; one shape for the loop.

What must be known to go on is a value, `Course`, of arrays; a turn is a pure function of it and of the round's number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulations.populations.port import Clients
from simulations.virtual_time.asynchronous import AsynchronousRounds, InFlight
from simulations.virtual_time.synchronous import Participation, SynchronousRounds

Course = Mapping[str, NDArray[Any]]
"""Between two rounds; Any: integers, floats and truths."""


@dataclass(frozen=True)
class Turn:
    """A round's participants."""

    clients: Clients
    """Whose updates are used, `(K,)`; may be none."""
    starts: int | Clients
    """The number of the round or of each start, for which batches and noise are drawn."""
    asked: int
    late: int = 0
    """Came after the round was over, or from a model that was too old."""
    lost: int = 0
    """Never heard of again."""
    clock_s: float = 0.0
    """Virtual time at the round's end."""
    versions: Clients | None = None
    """Of the model that each started from; nothing: the newest."""
    durations_s: NDArray[np.float64] | None = None
    """From being asked to the answer; nothing: it took no time."""


Learning = NDArray[np.float64]
"""What each of a round's clients had to learn, `(K,)`: its examples times its mean loss."""


class Participants(Protocol):
    """Decides who takes part."""

    def begin(self) -> Course:
        """Before the first round."""
        ...

    def turn(self, number: int, course: Course) -> tuple[Turn, Course]:
        """The round with this number, from 1."""
        ...

    def learned(self, number: int, course: Course, turn: Turn, learning: Learning) -> Course:
        """The course with what is remembered of what the round's clients learned; for most, nothing."""
        ...

    def versions_needed(self, course: Course) -> Sequence[int]:
        """Models that clients still train from, by the number of rounds that made them."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the results should know."""
        ...


@dataclass(frozen=True)
class Drawn:
    """A cohort for each round; everybody answers, at once."""

    draw: Callable[[int], Clients]
    notes: Sequence[str] = ()

    def begin(self) -> Course:
        return {}

    def turn(self, number: int, course: Course) -> tuple[Turn, Course]:
        clients = self.draw(number)
        return Turn(clients, number, asked=len(clients)), course

    def learned(self, number: int, course: Course, turn: Turn, learning: Learning) -> Course:
        return course

    def versions_needed(self, course: Course) -> Sequence[int]:
        return ()


@dataclass(frozen=True)
class InSync:
    """Rounds with a deadline, one after the other."""

    rounds: SynchronousRounds

    @property
    def notes(self) -> Sequence[str]:
        return self.rounds.behaviour.notes

    def begin(self) -> Course:
        return {"clock_s": np.zeros(())}

    def turn(self, number: int, course: Course) -> tuple[Turn, Course]:
        part = self.rounds.take_part(number, clock_s=float(course["clock_s"]))
        return turn_of(part), {"clock_s": np.array(part.ended_s)}

    def learned(self, number: int, course: Course, turn: Turn, learning: Learning) -> Course:
        return course

    def versions_needed(self, course: Course) -> Sequence[int]:
        return ()


@dataclass(frozen=True)
class Async:
    """Steps whenever a buffer is full; nobody waits for anybody."""

    rounds: AsynchronousRounds
    staleness_max: int
    """Updates from older models are discarded."""

    @property
    def notes(self) -> Sequence[str]:
        return self.rounds.behaviour.notes

    def begin(self) -> Course:
        return _course(self.rounds.begin())

    def turn(self, number: int, course: Course) -> tuple[Turn, Course]:
        part, state = self.rounds.fill(_in_flight(course))
        assert part.versions is not None
        chosen = (number - 1) - part.versions <= self.staleness_max
        return turn_of(part, chosen=chosen), _course(state)

    def learned(self, number: int, course: Course, turn: Turn, learning: Learning) -> Course:
        return course

    def versions_needed(self, course: Course) -> Sequence[int]:
        return _in_flight(course).versions_needed()


def turn_of(part: Participation, *, chosen: NDArray[np.bool_] | None = None) -> Turn:
    """The participation as the loop needs it; of a buffer, only the chosen updates."""
    chosen = np.ones(len(part.clients), bool) if chosen is None else chosen
    return Turn(
        clients=part.clients[chosen],
        starts=part.starts[chosen],
        asked=part.asked,
        late=part.late + int((~chosen).sum()),
        lost=part.lost,
        clock_s=part.ended_s,
        versions=None if part.versions is None else part.versions[chosen],
        durations_s=None if part.durations_s is None else part.durations_s[chosen],
    )


def _course(state: InFlight) -> Course:
    return {field.name: np.asarray(getattr(state, field.name)) for field in fields(InFlight)}


def _in_flight(course: Course) -> InFlight:
    # Single numbers come back as Python's own, arrays as they are. Any: each field as it was.
    values: dict[str, Any] = {name: value if value.ndim else value.item() for name, value in course.items()}
    return InFlight(**values)
