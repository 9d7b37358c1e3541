"""A short trial: which way is fastest here, for this model and these batches, and does it compute the same?"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from simulations.engines.port import Assignment
from simulations.engines.vector.choice import Choice, Way
from simulations.engines.vector.layers.kernel import Convolve
from simulations.engines.vector.training import Training

_CHUNKS = (1, 4, 16, 64, 256)
_SMALL_S = 0.03
"""A client that takes less is tried several at a time: alone, what a step costs in Python is all there is."""
_LARGE_CHUNK = 4
"""Clients together of a model that takes longer, measured with two: more would take longer than they gain."""
_HOPELESS = 1.5
"""Times the fastest way: what one takes in its first steps that is not measured further, where measuring takes long."""
_FAR = 1.2
"""The same of convolutions: theirs cost the same in every step, so that the first ones tell more."""
_FIRST_STEPS = 2
"""Of a client: enough to compare updates."""
_NEAR = 1.15
"""Times the fastest: what a trial of a second does not tell apart."""
_FEW_STEPS = 6
"""Of a client of a large model: so few that the first ones tell what all would take."""
_TOLERANCE = 1e-3
"""Of the largest change of any parameter: rounding stays far below, a mistake does not."""


@dataclass(frozen=True)
class Measured:
    """A choice and what it took."""

    choice: Choice
    client_s: float
    """CPU time of one client."""


@dataclass(frozen=True)
class Verdict:
    """What a trial found; `refused` says of each way that cannot be used why."""

    measured: Sequence[Measured]
    refused: Sequence[str]

    @property
    def best(self) -> Measured | None:
        return min(self.measured, key=lambda each: each.client_s, default=None)


class Trial:
    """Trains a few of the assignment's clients, and throws the updates away.

    Args:
        training: What trains.
        assignment: Its clients are the sample.
        share: The most clients that one process will have.
        budget_s: CPU time after which nothing new is tried; wall time may be more on a busy machine.
        has_draws: Whether ways may differ by what they draw at random, so that updates cannot be compared.
    """

    def __init__(
        self, training: Training, assignment: Assignment, *, share: int, budget_s: float, has_draws: bool
    ) -> None:
        self._budget_s = budget_s
        self._training, self._assignment = training, assignment
        self._share, self._has_draws = max(1, share), has_draws
        busiest = assignment.steps.argsort(descending=True, stable=True)
        self._positions = busiest[: self._share]
        self._short = replace(assignment, steps=assignment.steps.clamp(max=_FIRST_STEPS))

    def run(self, ways: Sequence[Choice]) -> Verdict:
        """Measures the ways, each with the chunks that look promising.

        Args:
            ways: What to try, best guess first; their chunks are ignored.
        """
        alone, refused = self._able(ways)
        ends = time.thread_time() + self._budget_s
        if self._is_large(alone):
            return Verdict(_without_ties(list(self._large(alone, ends))), refused)
        measured: list[Measured] = []
        for each in alone:
            if measured and time.thread_time() > ends:
                break
            measured.append(self._first(each.choice))
        for leader in sorted(measured, key=lambda each: each.client_s)[:2]:
            measured += self._larger_chunks(leader, ends)
        return Verdict(measured, refused)

    def _able(self, ways: Sequence[Choice]) -> tuple[list[Measured], list[str]]:
        """Ways that run and agree with torch's autograd on one client's first steps, and what they took."""
        able, refused = [], []
        expected, _ = self._deltas(Choice(Way.IN_PLACE, 1))
        for way in ways:
            try:
                found, client_s = self._deltas(way)
            except Exception as error:  # whatever a model raises under torch.func: the way is not for it
                refused.append(f"{way.way}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
                continue
            if self._has_draws or _agree(found, expected):
                able.append(Measured(replace(way, chunk=1), client_s))
            else:
                refused.append(f"{way}: its update differs from that of torch's autograd")
        return able, refused

    def _deltas(self, way: Choice) -> tuple[torch.Tensor, float]:
        started = time.thread_time()
        (trained,) = self._training.updates(self._short, self._positions[:1], replace(way, chunk=1))
        return trained.deltas.clone(), (time.thread_time() - started) * self._longer

    @property
    def _longer(self) -> float:
        """How many times its first steps the first client takes."""
        first = self._positions[0]
        return float(self._assignment.steps[first] / self._short.steps[first].clamp(min=1))

    def _is_large(self, alone: Sequence[Measured]) -> bool:
        """Whether a client takes long, which its first steps tell; a first run may have loaded something."""
        fastest = min(alone, key=lambda each: each.client_s, default=None)
        if fastest is None or fastest.client_s <= _SMALL_S:
            return False
        return self._first_steps_s(fastest.choice) > _SMALL_S

    def _first_steps_s(self, way: Choice) -> float:
        """What a client would take whose later steps are as its first."""
        return self._timed(self._short, way) * self._longer

    def _large(self, alone: Sequence[Measured], ends: float) -> Iterable[Measured]:
        """Of a large model: two clients whole, since later steps of shared weights take longer than the first."""
        if int(self._assignment.steps[self._positions[0]]) <= _FEW_STEPS:
            yield from (self._with_others(self._warm(each)) for each in alone)
            return
        for place, way in enumerate(promising(alone)):
            if place and time.thread_time() > ends:
                return
            yield self._pair(way)

    def _pair(self, way: Choice) -> Measured:
        if way.way is Way.IN_PLACE:
            return self._measure(way)
        return self._with_others(self._measure(replace(way, chunk=min(self._share, 2))))

    def _warm(self, alone: Measured) -> Measured:
        """Of a way that is torch's own the second run, since the first has loaded it."""
        if alone.choice.way is Way.LAYERS:
            return alone
        return replace(alone, client_s=self._first_steps_s(alone.choice))

    def _with_others(self, measured: Measured) -> Measured:
        """As if a few more had been measured together."""
        if measured.choice.way is Way.IN_PLACE:
            return measured
        return replace(measured, choice=replace(measured.choice, chunk=min(self._share, _LARGE_CHUNK)))

    def _first(self, way: Choice) -> Measured:
        """Of a small one."""
        alone = self._measure(replace(way, chunk=1))
        if way.way is Way.IN_PLACE:
            return alone
        return self._measure(replace(way, chunk=min(self._share, _CHUNKS[2])))

    def _larger_chunks(self, leader: Measured, ends: float) -> Iterable[Measured]:
        """Four times as many clients, as long as it pays."""
        if leader.choice.way is Way.IN_PLACE:
            return
        last = leader
        sizes = sorted({min(self._share, size) for size in (*_CHUNKS, self._share) if size <= _CHUNKS[-1]})
        for size in (size for size in sizes if size > leader.choice.chunk):
            if time.thread_time() + size * last.client_s > ends:
                return
            last = self._measure(replace(leader.choice, chunk=size))
            yield last
            if last.client_s > leader.client_s:
                return
            leader = last

    def _measure(self, choice: Choice) -> Measured:
        """The faster of two runs; the first alone if it took long."""
        first = self._timed(self._assignment, choice)
        return Measured(choice, first if first > _SMALL_S else min(first, self._timed(self._assignment, choice)))

    def _timed(self, assignment: Assignment, choice: Choice) -> float:
        positions = self._positions[: choice.chunk]
        started = time.thread_time()
        for _ in self._training.updates(assignment, positions, choice):
            pass
        return (time.thread_time() - started) / len(positions)


def promising(alone: Sequence[Measured]) -> list[Choice]:
    """What the first steps leave in the race.

    Convolutions are judged by their fastest form, so that whole clients decide between weights: corrections of low
    rank cost more with every step.

    Args:
        alone: What one client takes in each way, by its first steps.
    """
    convolutions: dict[Convolve, float] = {}
    for each in alone:
        if (form := each.choice.form) is not None:
            convolutions[form.convolve] = min(each.client_s, convolutions.get(form.convolve, each.client_s))
    hopeless_s = _HOPELESS * min(each.client_s for each in alone)
    far_s = _FAR * min(convolutions.values(), default=0.0)
    far = {convolve for convolve, client_s in convolutions.items() if client_s > far_s}
    near = [each.choice for each in alone if each.client_s <= hopeless_s]
    return [choice for choice in near if choice.form is None or choice.form.convolve not in far]


def _agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if not bool(expected.isfinite().all()):
        return True  # a client that diverges at once tells nothing
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max() + 1e-7)


def _without_ties(measured: Sequence[Measured]) -> list[Measured]:
    """Of ways that take nearly the same the best guess alone, which is the first of them.

    On one core own weights take what shared ones do; where every core works, they have no room in the cache.
    """
    near_s = _NEAR * min(each.client_s for each in measured)
    first = next(each for each in measured if each.client_s <= near_s)
    return [first, *(each for each in measured if each.client_s > near_s)]
