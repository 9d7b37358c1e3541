"""Cohorts by utility: the coordinator's own choice (`cloud.campaigns.selection_utility`), over a simulated population.

What is remembered are the clients that ever took part, so a population of ten million costs no more than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cloud.campaigns.selection_utility import Known, UtilitySettings, choose
from simulations.populations.port import Clients
from simulations.populations.selecting import available_cohort
from simulations.rounds.participation import Course, Learning, Turn, turn_of
from simulations.virtual_time.synchronous import IsThere, SynchronousRounds

_NAMES = ("known_clients", "known_learning", "known_duration_s", "known_last_round", "known_times")


@dataclass(frozen=True)
class ByUtility:
    """Rounds of clients that have most to teach in the least time, and of some that nobody knows.

    Args:
        clients: Size of the population.
        size: Of a cohort.
        seed: Of what is drawn.
        rounds: In virtual time; nothing: everybody answers, at once.
    """

    clients: int
    size: int
    seed: int
    rounds: SynchronousRounds | None = None
    settings: UtilitySettings = field(default_factory=UtilitySettings)

    @property
    def notes(self) -> Sequence[str]:
        return self.rounds.behaviour.notes if self.rounds else ()

    def begin(self) -> Course:
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        nobody = dict(zip(_NAMES, (whole, real, real, whole, whole), strict=True))
        return nobody | ({"clock_s": np.zeros(())} if self.rounds else {})

    def turn(self, number: int, course: Course) -> tuple[Turn, Course]:
        chosen = partial(self._choose, course, number)
        if self.rounds is None:
            clients = chosen(number, _everybody)
            return Turn(clients, number, asked=len(clients)), course
        part = self.rounds.take_part(number, clock_s=float(course["clock_s"]), choose=chosen)
        return turn_of(part), {**course, "clock_s": np.array(part.ended_s)}

    def learned(self, number: int, course: Course, turn: Turn, learning: Learning) -> Course:
        """The newest of each client counts; times add up."""
        before, count = [course[name] for name in _NAMES], len(turn.clients)
        durations_s = np.full(count, np.nan) if turn.durations_s is None else turn.durations_s
        now = (turn.clients, learning, durations_s, np.full(count, number), np.ones(count, np.int64))
        clients, seen, duration_s, last, times = (np.concatenate(pair) for pair in zip(before, now, strict=True))
        unique, place = np.unique(clients, return_inverse=True)
        newest = np.empty(len(unique), np.int64)
        newest[place] = np.arange(len(clients))  # the later of two writes stays
        total = np.bincount(place, times, len(unique)).astype(np.int64)
        known = (unique, seen[newest], duration_s[newest], last[newest], total)
        return {**course, **dict(zip(_NAMES, known, strict=True))}

    def versions_needed(self, course: Course) -> Sequence[int]:
        return ()

    def _choose(self, course: Course, round: int, number: int, is_there: IsThere) -> Clients:
        """Among all known that are there, and enough of the others: those are all alike, so more change nothing."""
        known, *columns = (course[name] for name in _NAMES)
        there = is_there(known)
        unknown = available_cohort(
            self.clients,
            min(self.size, self.clients),
            partial(_there_and_new, known, is_there),
            seed=self.seed,
            round=number,
        )
        candidates = np.concatenate([known[there], unknown])
        nothing = np.full(len(unknown), np.nan)
        learning, duration_s, last, times = (
            np.concatenate([column[there], filler])
            for column, filler in zip(columns, (nothing, nothing, unknown * 0, unknown * 0), strict=True)
        )
        generator = np.random.default_rng([self.seed, number, 0x0047])
        size = min(self.size, len(candidates))
        known_now = Known(np.maximum(learning, 0.0), duration_s, last, times)
        places = choose(known_now, size, round=round, settings=self.settings, generator=generator)
        return np.sort(candidates[places])


def _everybody(clients: Clients) -> NDArray[np.bool_]:
    return np.ones(len(clients), bool)


def _there_and_new(known: Clients, is_there: IsThere, clients: Clients) -> NDArray[np.bool_]:
    new: NDArray[np.bool_] = ~np.isin(clients, known, assume_unique=True)
    new[new] = is_there(clients[new])
    return new
