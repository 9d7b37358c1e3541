"""Synchronous rounds in virtual time: who is asked, whose update comes in time, and when the round is over.

The same decisions as the coordinator's (`cloud.campaigns.rounds`): a round ends when everybody has answered or at its
deadline; with fewer updates than the quorum it is abandoned, and tried again with other clients. With `enough`, more
clients are asked than are needed, and the round ends with the first so many (Bonawitz et al. 2019, section 2.2).

Only clients whose updates are used need to be trained; of the others, only the time matters.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from simulations.behaviour.availability import Flags, Seconds
from simulations.behaviour.course import Behaviour, Load
from simulations.populations.batches import Poisson, Shuffled, passes
from simulations.populations.port import Clients, Population
from simulations.populations.selecting import available_cohort
from simulations.virtual_time.errors import NobodyThereError

ATTEMPTS_MAX = 100
"""Tries at one round before the run stops."""
_LOOK_AGAIN_S = (60.0, 120.0, 240.0, 480.0)
"""Pauses between looks at who is there; the last one then stays."""
_WAIT_MAX_S = 7 * 86_400.0


IsThere = Callable[[Clients], Flags]
Choose = Callable[[int, IsThere], Clients]
"""From the number of a try and who is there to whom to ask, ascending."""


@dataclass(frozen=True)
class Patience:
    """How a coordinator holds a round."""

    asked: int
    """Clients asked."""
    quorum: int
    """Fewest updates that make a model."""
    enough: int | None = None
    """Updates after which nobody is waited for; nothing: for all of them."""
    deadline_s: float = 3600.0
    """After asking; finite, since a coordinator cannot know that a client is lost."""


@dataclass(frozen=True)
class Held:
    """A try at a round, once it is over."""

    accepted: Clients
    """Positions in what was asked, ascending."""
    ended_s: float
    is_abandoned: bool


@dataclass(frozen=True)
class Participation:
    """A round as virtual time saw it."""

    clients: Clients
    """Whose updates make the model, ascending."""
    starts: Clients
    """A number for each of these starts: batches and noise are drawn for it."""
    started_s: float
    ended_s: float
    asked: int
    """Over all tries."""
    late: int
    """Updates that came after their round was over."""
    lost: int
    """Clients that were asked and never heard of again."""
    attempts: int
    durations_s: Seconds | None = None
    """From being asked to the answer, `(K,)`."""
    versions: Clients | None = None
    """Of the model that each started from, `(K,)`; nothing in a synchronous round: the newest."""


def hold(arrived_s: Seconds, *, asked_s: float, patience: Patience) -> Held:
    """Whose updates are used, and when the round is over, from when each would arrive (infinity: never)."""
    order = np.argsort(arrived_s, kind="stable")
    deadline_s = asked_s + patience.deadline_s
    in_time = order[arrived_s[order] < deadline_s]
    enough = min(len(arrived_s), patience.enough or len(arrived_s))
    is_enough = len(in_time) >= enough
    ended_s = float(arrived_s[in_time[enough - 1]]) if is_enough else deadline_s
    accepted = in_time[arrived_s[in_time] <= ended_s]
    return Held(np.sort(accepted), ended_s, is_abandoned=len(accepted) < patience.quorum)


@dataclass(frozen=True)
class SynchronousRounds:
    """Rounds of one run; each is a pure function of its number and of when it starts."""

    population: Population
    behaviour: Behaviour
    patience: Patience
    work: Shuffled | Poisson
    bytes_down: float
    bytes_up: float
    seed: int

    def take_part(self, round: int, *, clock_s: float, choose: Choose | None = None) -> Participation:
        """The round with this number, from 1.

        Args:
            round: Its number.
            clock_s: When it starts.
            choose: Whom to ask; nothing: all alike.

        Raises:
            NobodyThereError: Too few clients were there for a week, or no try of a hundred reached the quorum.
        """
        tally = Participation(np.zeros(0, np.int64), np.zeros(0, np.int64), clock_s, clock_s, 0, 0, 0, 0)
        for attempt in range(ATTEMPTS_MAX):
            number = round * ATTEMPTS_MAX + attempt
            clients, asked_s = self._cohort(number, tally.ended_s, choose or self._all_alike)
            arrived_s = self._arrivals(clients, number, asked_s)
            held = hold(arrived_s, asked_s=asked_s, patience=self.patience)
            lost = int(np.isinf(arrived_s).sum())
            tally = replace(
                tally,
                clients=clients[held.accepted],
                durations_s=arrived_s[held.accepted] - asked_s,
                starts=np.full(len(held.accepted), number),
                ended_s=held.ended_s,
                asked=tally.asked + len(clients),
                late=tally.late + len(clients) - len(held.accepted) - lost,
                lost=tally.lost + lost,
                attempts=attempt + 1,
            )
            if not held.is_abandoned:
                return tally
        raise NobodyThereError(
            f"Expected {self.patience.quorum} updates in round {round}, got fewer in {ATTEMPTS_MAX} tries",
            hint="Give a longer deadline, ask more clients, or lower the quorum.",
        )

    def _cohort(self, number: int, clock_s: float, choose: Choose) -> tuple[Clients, float]:
        """Who is asked and when: as the coordinator does, waits until at least the quorum is there."""
        at_s, looks = clock_s, 0
        while at_s <= clock_s + _WAIT_MAX_S:
            clients = choose(number, partial(self._is_there, at_s=at_s))
            if len(clients) >= self.patience.quorum:
                return clients, at_s
            at_s += _LOOK_AGAIN_S[min(looks, len(_LOOK_AGAIN_S) - 1)]
            looks += 1
        days = _WAIT_MAX_S / 86_400
        raise NobodyThereError(
            f"Expected {self.patience.quorum} clients to ask, got fewer for {days:g} days of virtual time",
            hint="Let more clients be there at once, or lower the quorum.",
        )

    def _all_alike(self, number: int, is_there: IsThere) -> Clients:
        size = min(self.patience.asked, self.population.clients)
        return available_cohort(self.population.clients, size, is_there, seed=self.seed, round=number)

    def _is_there(self, clients: Clients, *, at_s: float) -> Flags:
        return self.behaviour.is_there(clients, np.full(len(clients), at_s))

    def _arrivals(self, clients: Clients, number: int, asked_s: float) -> Seconds:
        load = Load(passes(self.work, self.population.sizes(clients)), self.bytes_down, self.bytes_up)
        seconds = self.behaviour.durations(clients, np.full(len(clients), number), load)
        return self.behaviour.handed_in(clients, np.full(len(clients), asked_s), asked_s + seconds)
