"""A campaign's rules against one device's live state and its history in the campaign. Pure: values in, words out."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.api.campaigns import SelectionRules
from shared.api.devices import Device


@dataclass(frozen=True)
class History:
    """What a device did in this campaign so far."""

    last_asked: int | None = None
    """The newest round it was asked in."""
    times: int = 0
    """Updates of it that were accepted."""
    last_done: int | None = None
    """The newest round with an accepted update."""
    failures: int = 0
    """In a row, up to now: failed or silent."""
    examples: int | None = None
    """As the newest accepted update said."""
    loss: float | None = None
    """Mean training loss in it."""
    duration_s: float | None = None
    """How long it trained for it."""


Histories = Mapping[str, History]
NEWCOMER = History()


def why_not_by_rules(device: Device, rules: SelectionRules, history: History, *, round: int) -> str:
    """Why the rules leave the device out of this round, in one sentence; empty when they do not."""
    return _by_name(device, rules) or _by_live_state(device, rules) or _by_history(device, rules, history, round)


def _by_name(device: Device, rules: SelectionRules) -> str:
    for name, value in rules.tags.items():
        if device.tags.get(name) != value:
            return f"Expected the tag {name}={value}, the device has {device.tags.get(name, 'none')}"
    if rules.sites and device.tags.get("site") not in rules.sites:
        return f"Expected the site {' or '.join(rules.sites)}, the device is at {device.tags.get('site', 'none')}"
    return ""


def _by_live_state(device: Device, rules: SelectionRules) -> str:
    live = device.live
    if rules.charging_only and live.is_charging is False:
        return "Runs on its battery"
    if _below(live.battery, rules.battery_min) and not live.is_charging:
        return f"Battery at {live.battery:.0%}, below {rules.battery_min:.0%}"
    if rules.networks and live.network and live.network not in rules.networks:
        return f"On {live.network}, not on {' or '.join(rules.networks)}"
    if _below(rules.temperature_max_c, live.temperature_c):
        return f"At {live.temperature_c:.0f} degrees, above {rules.temperature_max_c:g}"
    if _below(live.memory_free_bytes, rules.memory_free_min_bytes):
        return f"Has {live.memory_free_bytes or 0:,} bytes of memory free, fewer than {rules.memory_free_min_bytes:,}"
    if _below(rules.data_age_max_s, live.data_age_s):
        return f"Its data last changed {live.data_age_s:.0f} s ago, more than {rules.data_age_max_s:g} s"
    drift = max((feature.psi / feature.threshold for feature in device.drift), default=0.0)
    if rules.drift_min is not None and drift < rules.drift_min:
        return f"Drifts by {drift:.2f} times its threshold, less than {rules.drift_min:g}"
    return ""


def _by_history(device: Device, rules: SelectionRules, history: History, round: int) -> str:
    if _below(history.examples, rules.examples_min):
        return f"Has {history.examples} examples, fewer than {rules.examples_min}"
    if rules.failures_max is not None and history.failures >= rules.failures_max:
        return f"Failed or stayed silent {history.failures} times in a row in this campaign"
    if rules.rest_rounds and history.last_asked is not None and round - history.last_asked <= rules.rest_rounds:
        return f"Rests until round {history.last_asked + rules.rest_rounds + 1}: it was asked in {history.last_asked}"
    return ""


def _below(value: float | None, bound: float | None) -> bool:
    """Whether both are known and the first is less."""
    return value is not None and bound is not None and value < bound
