"""Draws a round's devices among those that may be asked, and says of each why it was drawn or not. Pure.

The same campaign, round and attempt draw the same, so a coordinator that is killed in between asks nobody else.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cloud.campaigns.selection import Selection
from cloud.campaigns.selection_rules import NEWCOMER, Histories
from cloud.campaigns.selection_utility import Known, UtilitySettings, choose, utilities
from shared.api.campaigns import Draw, SelectionRules
from shared.ids import DeviceId

UTILITY = UtilitySettings()


def draw(selection: Selection, rules: SelectionRules, histories: Histories, *, seed: str, round: int) -> Selection:
    """The selection with only those that are drawn.

    Args:
        selection: Whom the rules allow.
        rules: How to draw.
        histories: What each device did in the campaign.
        seed: Names campaign, round and attempt, or follows from a secret of theirs.
        round: Its number, from 1.
    """
    able = selection.chosen
    if rules.draw is Draw.POISSON:
        # A coin from the device's own name: who else may be asked changes nobody's.
        drawn = np.array([_coin(seed, device) < (rules.rate or 0.0) for device in able], bool)
        return _narrowed(selection, drawn, [f"Chance of {rules.rate:g}, independently"] * len(able))
    if rules.cohort is None or len(able) <= rules.cohort:
        return selection
    if rules.draw is Draw.UNIFORM:
        drawn = _flags(len(able), _generator(seed).choice(len(able), rules.cohort, replace=False))
        return _narrowed(selection, drawn, [f"{rules.cohort} of {len(able)}, all alike"] * len(able))
    known = _known(able, histories)
    worth = utilities(known, round=round, settings=UTILITY)
    chosen = choose(known, rules.cohort, round=round, settings=UTILITY, generator=_generator(seed))
    return _narrowed(selection, _flags(len(able), chosen), _in_words(worth))


def _known(able: Sequence[DeviceId], histories: Histories) -> Known:
    found = [histories.get(device, NEWCOMER) for device in able]
    nothing = float("nan")
    learning = [
        history.examples * history.loss if history.examples is not None and history.loss is not None else nothing
        for history in found
    ]
    durations = [nothing if history.duration_s is None else history.duration_s for history in found]
    return Known(
        learning=np.maximum(np.array(learning), 0.0),
        duration_s=np.array(durations),
        last_round=np.array([history.last_done or 0 for history in found], np.int64),
        times=np.array([history.times for history in found], np.int64),
    )


def _in_words(worth: np.ndarray) -> list[str]:
    rank = {int(place): number for number, place in enumerate(np.argsort(-worth), start=1)}
    known = int((~np.isnan(worth)).sum())
    return [
        "Nothing is known of its utility yet" if np.isnan(value) else f"Utility {value:.2f}, {rank[place]} of {known}"
        for place, value in enumerate(worth.tolist())
    ]


def _narrowed(selection: Selection, drawn: np.ndarray, why: Sequence[str]) -> Selection:
    pairs = list(zip(selection.chosen, drawn.tolist(), why, strict=True))
    left_out = {device: f"Not drawn. {reason}" for device, is_drawn, reason in pairs if not is_drawn}
    return replace(
        selection,
        chosen=tuple(device for device, is_drawn, _ in pairs if is_drawn),
        excluded=dict(sorted({**selection.excluded, **left_out}.items())),
        why_chosen={device: f"Drawn. {reason}" for device, is_drawn, reason in pairs if is_drawn},
    )


def _flags(count: int, chosen: np.ndarray) -> np.ndarray:
    flags = np.zeros(count, bool)
    flags[chosen] = True
    return flags


def _coin(seed: str, device: DeviceId) -> float:
    """Uniform in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"{seed} {device}".encode()).digest()[:6], "big") / 2.0**48


def _generator(seed: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
