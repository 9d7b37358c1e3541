"""A campaign's rules leave devices out with a reason, and what a device does not report leaves nobody out."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from cloud.campaigns.selection import Wanted, why_not
from cloud.campaigns.selection_rules import NEWCOMER, History, why_not_by_rules
from shared.api.campaigns import SelectionRules
from shared.api.devices import Device
from shared.messages.events import FeatureDrift, LiveState

DEVICE = Device(device_id="press-01", enrolled_at=0, is_online=True, tasks={"digits": "1"})


def device(*, tags: dict[str, str] | None = None, drift: float | None = None, **live: Any) -> Device:
    found = [] if drift is None else [FeatureDrift(feature="x", psi=drift * 0.2, threshold=0.2)]
    return DEVICE.model_copy(update={"live": LiveState(**live), "drift": found, "tags": tags or {}})


@pytest.mark.parametrize(
    ("rules", "left_out", "allowed", "reason"),
    [
        ({"tags": {"line": "3"}}, device(tags={"line": "4"}), device(tags={"line": "3"}), "the device has 4"),
        ({"sites": "berlin,paris"}, device(tags={"site": "rome"}), device(tags={"site": "paris"}), "is at rome"),
        ({"battery_min": 0.5}, device(battery=0.3), device(battery=0.3, is_charging=True), "at 30%, below 50%"),
        ({"charging_only": True}, device(battery=1, is_charging=False), device(battery=0, is_charging=True), "battery"),
        ({"networks": ["wifi", "ethernet"]}, device(network="cellular"), device(network="wifi"), "On cellular"),
        ({"temperature_max_c": 70}, device(temperature_c=81.4), device(temperature_c=70), "At 81 degrees, above 70"),
        (
            {"memory_free_min_bytes": 10**9},
            device(memory_free_bytes=5 * 10**8),
            device(memory_free_bytes=10**9),
            "500,000",
        ),
        ({"data_age_max_s": 3600}, device(data_age_s=7200), device(data_age_s=60), "7200 s ago"),
        ({"drift_min": 1}, device(drift=0.6), device(drift=1.2), "Drifts by 0.60"),
    ],
)
def test_live_state_leaves_a_device_out_with_the_reason(
    rules: dict[str, Any], left_out: Device, allowed: Device, reason: str
) -> None:
    parsed = SelectionRules.model_validate(rules)
    assert reason in why_not_by_rules(left_out, parsed, NEWCOMER, round=1)
    assert why_not_by_rules(allowed, parsed, NEWCOMER, round=1) == ""
    if not parsed.tags and not parsed.sites and parsed.drift_min is None:
        assert why_not_by_rules(device(), parsed, NEWCOMER, round=1) == ""


@pytest.mark.parametrize(
    ("rules", "history", "reason"),
    [
        (SelectionRules(examples_min=20), History(examples=19), "Has 19 examples, fewer than 20"),
        (SelectionRules(failures_max=2), History(failures=2), "2 times in a row"),
        (SelectionRules(rest_rounds=2), History(last_asked=3), "Rests until round 6: it was asked in 3"),
    ],
)
def test_history_leaves_a_device_out_with_the_reason(rules: SelectionRules, history: History, reason: str) -> None:
    assert reason in why_not_by_rules(DEVICE, rules, history, round=5)
    assert why_not_by_rules(DEVICE, rules, NEWCOMER, round=5) == ""
    assert why_not_by_rules(DEVICE, rules, replace(history, last_asked=2, failures=0, examples=20), round=5) == ""


def test_rules_are_asked_after_what_is_more_lasting() -> None:
    wanted = Wanted("digits", "1", rules=SelectionRules(battery_min=0.5))
    low = device(battery=0.1)
    assert why_not(low, wanted) == "Battery at 10%, below 50%"
    assert why_not(low.model_copy(update={"is_online": False}), wanted) == "Offline"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"draw": "poisson"}, "rate"),
        ({"rate": 0.1}, "rate"),
        ({"draw": "poisson", "rate": 0.1, "cohort": 5}, "no cohort"),
        ({"draw": "utility"}, "expected a cohort"),
        ({"cohort": 4, "enough": 5}, "at least as many"),
        ({"battery_min": 50}, "less than or equal to 1"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SelectionRules.model_validate(rules)
