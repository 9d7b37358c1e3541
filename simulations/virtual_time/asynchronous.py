"""Asynchronous rounds in virtual time (FedBuff: Nguyen et al. 2022, arXiv:2106.06639, algorithm 1), without a model.

Some clients train at any time; when one is done, another starts with the newest model, and whenever `buffer` updates
have come the model takes a step. When a client is done does not depend on what it learned, so the whole order of events
is found without training anybody. What is left to train is one buffer at a time: many clients, each from the version
that it got, which an engine trains together.

    state = rounds.begin()
    part, state = rounds.fill(state)       # clients, and the versions they started from
    state.versions_needed()                # models that must be kept
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulations.behaviour.availability import Seconds
from simulations.behaviour.course import Behaviour, Load
from simulations.keyed import Stream
from simulations.populations.batches import Poisson, Shuffled, passes
from simulations.populations.cohorts import check_cohort
from simulations.populations.port import Population
from simulations.virtual_time.errors import NobodyThereError
from simulations.virtual_time.synchronous import Participation

Ints = NDArray[np.int64]

_BLOCK = 512
"""Candidates drawn at once, and looked at for one start."""
_GLANCES = (16, 112, 128, 128, 128)
"""How many of them are looked at together: mostly one of the first few is there."""
_LOOK_AGAIN_S = 300.0
_WAIT_MAX_S = 7 * 86_400.0
_NOBODY = -1


@dataclass(frozen=True)
class InFlight:
    """Between two steps of the model: who trains, from which version, until when. All that a checkpoint needs."""

    clients: Ints
    """-1: nobody was there to start; looked for again at `done_s`."""
    starts: Ints
    """The number of each start, for which its batches and noise are drawn."""
    versions: Ints
    """Of the model that each got."""
    done_s: Seconds
    is_lost: NDArray[np.bool_]
    """Whether what happens at `done_s` is only that the coordinator's patience ends."""
    candidate: int
    """How many clients were looked at so far."""
    version: int
    """Steps of the model so far."""
    clock_s: float

    def versions_needed(self) -> list[int]:
        """Models that somebody still trains from, and the newest, ascending."""
        return sorted({*self.versions.tolist(), self.version})


@dataclass(frozen=True)
class AsynchronousRounds:
    """Steps of one run, each a pure function of the state before."""

    population: Population
    behaviour: Behaviour
    buffer: int
    """Updates that make a step."""
    concurrency: int
    """Clients that train at any time."""
    work: Shuffled | Poisson
    bytes_down: float
    bytes_up: float
    seed: int
    timeout_s: float = 86_400.0
    """After which a client that was asked is not waited for."""

    def begin(self) -> InFlight:
        """As many clients as may train at once, started with version 0. Raises CohortTooLargeError."""
        check_cohort(self.population.clients, self.concurrency)
        nothing = np.zeros(0, np.int64)
        events = _Events(self, InFlight(nothing, nothing, nothing, np.zeros(0), np.zeros(0, bool), 0, 0, 0.0))
        for _ in range(self.concurrency):
            events.start_another()
        return events.state()

    def fill(self, state: InFlight) -> tuple[Participation, InFlight]:
        """Lets time go on until the buffer is full; `clients` are in the order of their coming.

        Raises:
            NobodyThereError: No update came for a week.
        """
        events = _Events(self, state)
        taken: list[_Flight] = []
        lost = 0
        while len(taken) < self.buffer:
            flight = events.next()
            if flight.client != _NOBODY and not flight.is_lost:
                taken.append(flight)
            lost += flight.is_lost
            # Who starts after the last one gets the model that the full buffer makes.
            events.version = state.version + (len(taken) == self.buffer)
            events.start_another()
            if events.clock_s > (taken[-1].done_s if taken else state.clock_s) + _WAIT_MAX_S:
                raise _nobody()
        return _participation(taken, state, lost, events.clock_s), events.state()


def _participation(taken: "list[_Flight]", state: InFlight, lost: int, clock_s: float) -> Participation:
    versions = np.array([flight.version for flight in taken], np.int64)
    return Participation(
        clients=np.array([flight.client for flight in taken], np.int64),
        starts=np.array([flight.start for flight in taken], np.int64),
        started_s=state.clock_s,
        ended_s=clock_s,
        asked=len(taken) + lost,
        late=0,
        lost=lost,
        attempts=1,
        versions=versions,
    )


def _nobody() -> NobodyThereError:
    return NobodyThereError(
        f"Expected an update, got none for {_WAIT_MAX_S / 86_400:g} days of virtual time",
        hint="Let more clients be there at once, or wait longer for each (timeout_s).",
    )


class _Flight(NamedTuple):
    """Ordered by when something happens, then by who started first."""

    done_s: float
    start: int
    client: int
    version: int
    is_lost: bool


class _Events:
    """The queue of what happens next, changed in place."""

    def __init__(self, rounds: AsynchronousRounds, state: InFlight) -> None:
        self._rounds = rounds
        self._order = Stream.named(rounds.seed, "asynchronous")
        columns = (state.done_s, state.starts, state.clients, state.versions, state.is_lost)
        self._queue = [_Flight(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        self._busy = {flight.client for flight in self._queue}
        self._candidate = state.candidate
        self._drawn_from, self._drawn = -_BLOCK, (np.zeros(0, np.int64), np.zeros(0))
        self._nobody_at_s = -1.0
        self.version, self.clock_s = state.version, state.clock_s

    def state(self) -> InFlight:
        queue = sorted(self._queue)
        return InFlight(
            clients=np.array([flight.client for flight in queue], np.int64),
            starts=np.array([flight.start for flight in queue], np.int64),
            versions=np.array([flight.version for flight in queue], np.int64),
            done_s=np.array([flight.done_s for flight in queue], np.float64),
            is_lost=np.array([flight.is_lost for flight in queue], bool),
            candidate=self._candidate,
            version=self.version,
            clock_s=self.clock_s,
        )

    def next(self) -> _Flight:
        """What happens next; it is then now."""
        flight = heapq.heappop(self._queue)
        self._busy.discard(flight.client)
        self.clock_s = flight.done_s
        return flight

    def start_another(self) -> None:
        """Some idle client that is there starts with the newest model; where nobody is, one is looked for again."""
        found = None if self._nobody_at_s == self.clock_s else self._idle_client()
        if found is None:
            self._nobody_at_s = self.clock_s
            again = _Flight(self.clock_s + _LOOK_AGAIN_S, self._candidate, _NOBODY, self.version, False)
            heapq.heappush(self._queue, again)
            return
        client, number, seconds = found
        now_s = np.array([self.clock_s])
        arrived_s = float(self._rounds.behaviour.handed_in(np.array([client]), now_s, now_s + seconds)[0])
        gives_up_s = self.clock_s + self._rounds.timeout_s
        done_s, is_lost = min(arrived_s, gives_up_s), arrived_s > gives_up_s
        heapq.heappush(self._queue, _Flight(done_s, number, client, self.version, is_lost))
        self._busy.add(client)

    def _idle_client(self) -> tuple[int, int, float] | None:
        """A client, the number of its start, and how long it will take; nothing where nobody in a block is there."""
        for glance in _GLANCES:
            clients, seconds = self._next_candidates(glance)
            is_there = self._rounds.behaviour.is_there(clients, np.full(len(clients), self.clock_s))
            for place in np.flatnonzero(is_there).tolist():
                if (client := int(clients[place])) not in self._busy:
                    number = self._candidate + place
                    self._candidate = number + 1
                    return client, number, float(seconds[place])
            self._candidate += len(clients)
        return None

    def _next_candidates(self, count: int) -> tuple[Ints, Seconds]:
        """A few clients and how long each would take; drawn in blocks, by their numbers alone."""
        if not self._drawn_from <= self._candidate < self._drawn_from + _BLOCK:
            rounds, numbers = self._rounds, self._candidate + np.arange(_BLOCK)
            clients = (self._order.uniform(numbers) * rounds.population.clients).astype(np.int64)
            load = Load(passes(rounds.work, rounds.population.sizes(clients)), rounds.bytes_down, rounds.bytes_up)
            self._drawn = clients, rounds.behaviour.durations(clients, numbers, load)
            self._drawn_from = self._candidate
        place = self._candidate - self._drawn_from
        return self._drawn[0][place : place + count], self._drawn[1][place : place + count]
