"""Choosing by utility with fairness: Oort (Lai et al. 2021, OSDI, arXiv:2010.06081, algorithm 1). Pure, over arrays.

A client's utility is what its data still teach (many examples with large losses), less when it is slow. Part of a
cohort is drawn among the best (exploitation), in proportion to utility; the rest among those that nobody knows yet
(exploration), less and less of it. Fairness mixes in how seldom a client has taken part.

Where it deviates from the paper: a client reports its mean loss, so `examples * loss` stands for the root mean square
over its examples; the preferred duration is a quantile of those seen, not paced up by the rounds' progress; and the
unknown are explored all alike, since nothing is known of their speed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class UtilitySettings:
    """Oort's own names where it has them."""

    exploration: float = 0.9
    """Part of the first round's cohort that is drawn among the unknown (epsilon)."""
    exploration_decay: float = 0.98
    exploration_min: float = 0.2
    cutoff: float = 0.95
    """Utility that is still among the best, as a part of the last one that would fit (c)."""
    clip_quantile: float = 0.95
    """Larger utilities count as this quantile's: one outlier does not take every round."""
    preferred_quantile: float = 0.5
    """Of the durations seen; slower clients are worth less (T)."""
    slowness_penalty: float = 2.0
    """Exponent of the penalty (alpha)."""
    fairness: float = 0.2
    """0: utility alone; 1: who took part least (f)."""


@dataclass(frozen=True)
class Known:
    """What is known of candidates, `(n,)` each."""

    learning: Floats
    """Statistical utility: examples times mean loss, at the newest participation; NaN: never took part."""
    duration_s: Floats
    """Of the newest participation; NaN: unknown."""
    last_round: Ints
    """Of the newest participation, from 1; 0: never."""
    times: Ints
    """Participations."""


def utilities(known: Known, *, round: int, settings: UtilitySettings) -> Floats:
    """Each candidate's utility, `(n,)`, 0 and up; NaN where it never took part."""
    seen = ~np.isnan(known.learning)
    if not seen.any():
        return np.full(len(known.learning), np.nan)
    capped = np.minimum(known.learning, np.quantile(known.learning[seen], settings.clip_quantile))
    scale = max(float(capped[seen].max()), np.finfo(float).tiny)
    # Long not asked is uncertain, and uncertainty is worth a look: an upper confidence bound (line 10).
    since = np.sqrt(0.1 * np.log(max(round, 2)) / np.maximum(known.last_round, 1))
    worth = (capped / scale + since) * _slowness(known.duration_s, seen, settings)
    seldom = known.times.max() - known.times
    fair = seldom / max(int(seldom.max()), 1)
    mixed: Floats = (1 - settings.fairness) * worth + settings.fairness * fair
    return np.where(seen, np.maximum(mixed, 0.0), np.nan)


def choose(known: Known, size: int, *, round: int, settings: UtilitySettings, generator: np.random.Generator) -> Ints:
    """Positions of up to `size` candidates, ascending.

    Args:
        known: Of all candidates.
        size: How many are wanted.
        round: Its number, from 1.
        settings: How to choose.
        generator: Made for this very round, so that the same round chooses the same.
    """
    worth = utilities(known, round=round, settings=settings)
    seen, unseen = np.flatnonzero(~np.isnan(worth)), np.flatnonzero(np.isnan(worth))
    explored = _exploration(round, settings) * size
    new = min(len(unseen), max(int(np.ceil(explored)), size - len(seen)))
    best = _best(worth[seen], min(size - new, len(seen)), settings, generator)
    chosen = np.concatenate([seen[best], generator.choice(unseen, new, replace=False)])
    return np.sort(chosen).astype(np.int64)


def _best(worth: Floats, size: int, settings: UtilitySettings, generator: np.random.Generator) -> Ints:
    """Positions drawn in proportion to worth, among those near the best (lines 12 to 14)."""
    if size == 0:
        return np.zeros(0, np.int64)
    bar = settings.cutoff * np.sort(worth)[-size]
    among = np.flatnonzero(worth >= bar)
    chances = worth[among] + np.finfo(float).tiny
    drawn: Ints = generator.choice(among, size, replace=False, p=chances / chances.sum())
    return drawn


def _slowness(duration_s: Floats, seen: NDArray[np.bool_], settings: UtilitySettings) -> Floats:
    timed = duration_s[seen & ~np.isnan(duration_s)]
    if not len(timed):
        return np.ones(len(duration_s))
    preferred_s = max(float(np.quantile(timed, settings.preferred_quantile)), np.finfo(float).tiny)
    ratio = preferred_s / np.maximum(np.nan_to_num(duration_s, nan=preferred_s), np.finfo(float).tiny)
    penalty: Floats = np.minimum(ratio, 1.0) ** settings.slowness_penalty
    return penalty


def _exploration(round: int, settings: UtilitySettings) -> float:
    return float(max(settings.exploration * settings.exploration_decay ** (round - 1), settings.exploration_min))
