"""When a client is there. Each model says of a client and a moment whether, and until when that surely stays so."""

from typing import Protocol, assert_never

import numpy as np
from numpy.typing import NDArray

from simulations.behaviour.settings import Always, Availability, Bernoulli, Diurnal, OnOff
from simulations.keyed import Stream

Clients = NDArray[np.int64]
Seconds = NDArray[np.float64]
Flags = NDArray[np.bool_]

CHANGES_MAX = 2000
"""How far ahead `next_available` looks, in changes of state; beyond it a client counts as gone for good."""
_DAY_S = 86_400.0
_CYCLES = 16


class Presence(Protocol):
    """An availability model."""

    def state(self, clients: Clients, at_s: Seconds) -> tuple[Flags, Seconds]:
        """Whether each is there, and a later moment until which that does not change (perhaps longer)."""
        ...


def presence(settings: Availability, *, seed: int) -> Presence:
    """The model of these settings."""
    match settings:
        case Always():
            return _Always()
        case Bernoulli():
            return _Bernoulli(settings, Stream.named(seed, "there"))
        case Diurnal():
            return _Diurnal(settings, Stream.named(seed, "habit"), Stream.named(seed, "day"))
        case OnOff():
            return _OnOff(settings, Stream.named(seed, "first"), Stream.named(seed, "stay"))
        case _:
            assert_never(settings)


def next_available(there: Presence, clients: Clients, at_s: Seconds) -> Seconds:
    """The first moment from `at_s` on at which each is there; infinity where it does not come any more."""
    found = np.full(len(clients), np.inf)
    pending, at_s = np.arange(len(clients)), np.asarray(at_s, np.float64)
    for _ in range(CHANGES_MAX):
        if not len(pending):
            break
        is_there, until_s = there.state(clients[pending], at_s)
        found[pending[is_there]] = at_s[is_there]
        pending, at_s = pending[~is_there], until_s[~is_there]
    return found


def stays(there: Presence, clients: Clients, from_s: Seconds, to_s: Seconds) -> Flags:
    """Whether each is there from one moment to another without a break."""
    unbroken = np.zeros(len(clients), bool)
    pending, at_s = np.arange(len(clients)), np.asarray(from_s, np.float64)
    for _ in range(CHANGES_MAX):
        if not len(pending):
            break
        is_there, until_s = there.state(clients[pending], at_s)
        reached = is_there & (until_s >= to_s[pending])
        unbroken[pending[reached]] = True
        going_on = is_there & ~reached
        pending, at_s = pending[going_on], until_s[going_on]
    return unbroken


class _Always:
    def state(self, clients: Clients, at_s: Seconds) -> tuple[Flags, Seconds]:
        return np.ones(len(clients), bool), np.full(len(clients), np.inf)


class _Bernoulli:
    def __init__(self, settings: Bernoulli, stream: Stream) -> None:
        self._settings, self._stream = settings, stream

    def state(self, clients: Clients, at_s: Seconds) -> tuple[Flags, Seconds]:
        period_s = self._settings.period_s
        period = np.floor(at_s / period_s).astype(np.int64)
        until_s = ((period + 1) * period_s).astype(np.float64)
        return self._stream.uniform(clients, period) < self._settings.chance, _after(at_s, until_s)


class _Diurnal:
    def __init__(self, settings: Diurnal, habit: Stream, day: Stream) -> None:
        self._settings, self._habit, self._day = settings, habit, day

    def state(self, clients: Clients, at_s: Seconds) -> tuple[Flags, Seconds]:
        """Looks at the windows that started yesterday and today; a window is shorter than a day."""
        hour_s, settings = 3600.0, self._settings
        usual_s = (settings.start_h + settings.spread_h * self._habit.normal(clients)) * hour_s % _DAY_S
        length_s = settings.hours * hour_s
        is_there, until_s = np.zeros(len(clients), bool), np.full(len(clients), np.inf)
        today = np.floor((at_s - usual_s) / _DAY_S).astype(np.int64)
        for day in (today - 1, today, today + 1, today + 2):
            # Days before the first have numbers too: the run starts in the middle of somebody's window.
            jitter_s = settings.jitter_h * hour_s * np.clip(self._day.normal(clients, day + 1000), -3, 3)
            start_s = usual_s + day * _DAY_S + jitter_s
            inside = (start_s <= at_s) & (at_s < start_s + length_s)
            until_s = np.where(inside & ~is_there, start_s + length_s, until_s)
            is_there |= inside
            coming = ~is_there & (start_s > at_s)
            until_s = np.where(coming, np.minimum(until_s, start_s), until_s)
        return is_there, _after(at_s, until_s)


class _OnOff:
    """Time is cut into blocks of 16 mean cycles; in each, a client's coming and going is drawn anew.

    So a moment a year ahead costs what the first one costs. A block starts in the stationary distribution, and
    exponential times have no memory, so the blocks' seams show only in that the state is drawn anew there.
    """

    def __init__(self, settings: OnOff, first: Stream, stay: Stream) -> None:
        self._settings, self._first, self._stay = settings, first, stay
        self._block_s = _CYCLES * (settings.on_s + settings.off_s)

    def state(self, clients: Clients, at_s: Seconds) -> tuple[Flags, Seconds]:
        on_s, off_s = self._settings.on_s, self._settings.off_s
        block = np.floor(at_s / self._block_s).astype(np.int64)
        first_is_on = self._first.uniform(clients, block) < on_s / (on_s + off_s)
        change = np.arange(4 * _CYCLES)
        is_on = first_is_on[:, None] ^ (change % 2 == 1)
        stay_s = -np.log(self._stay.uniform(clients[:, None], block[:, None], change)) * np.where(is_on, on_s, off_s)
        ends_s = (block * self._block_s)[:, None] + np.cumsum(stay_s, axis=1)
        now = np.minimum((ends_s <= at_s[:, None]).sum(axis=1), len(change) - 1)
        row = np.arange(len(clients))
        until_s = np.minimum(ends_s[row, now], (block + 1) * self._block_s)
        return is_on[row, now], _after(at_s, until_s)


def _after(at_s: Seconds, until_s: Seconds) -> Seconds:
    """Later than now, whatever rounding did: who walks from change to change must arrive."""
    later: Seconds = np.maximum(until_s, np.nextafter(at_s, np.inf))
    return later
