"""The plan for Azure IoT Hub: figures of its documentation, laws of any plan, and what the command says."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.hubs.__main__ import main
from cloud.hubs.plan import Fleet, Plan, plan
from cloud.hubs.tiers import TIERS, Operation

_FLEETS = st.builds(
    Fleet,
    devices=st.integers(1, 1_000_000),
    heartbeat_s=st.floats(1, 86_400),
    report_window_s=st.floats(1, 86_400),
    cohort=st.integers(1, 10_000),
)
_TIERS = st.sampled_from(list(TIERS.values()))


def _seconds(made: Plan) -> dict[Operation, float]:
    return {each.bound_by: each.seconds for each in made.durations}


def test_the_throttles_give_the_times_that_the_documentation_implies() -> None:
    fleet = Fleet(devices=10_000, cohort=10_000)
    one_unit = _seconds(plan(fleet, TIERS["S1"], units=1))
    assert one_unit[Operation.REGISTER] == pytest.approx(100 * 60)
    assert one_unit[Operation.CONNECT] == pytest.approx(100)
    assert one_unit[Operation.TWIN_UPDATE] == pytest.approx(5 * 200)
    assert one_unit[Operation.METHOD] == pytest.approx(10_000 / 40)
    assert _seconds(plan(fleet, TIERS["S3"], units=1))[Operation.REGISTER] == pytest.approx(120)


def test_a_message_counts_by_pieces_of_the_tiers_meter() -> None:
    assert [TIERS["S1"].metered(size) for size in (0, 1, 4096, 4097)] == [1, 1, 1, 2]
    assert TIERS["F1"].metered(1_000) == 2


def test_heartbeats_every_ten_seconds_fill_a_unit_of_s1_with_forty_devices() -> None:
    fleet = Fleet(devices=40, rounds_per_day=0, rollouts_per_day=0)
    made = plan(fleet, TIERS["S1"], units=None)
    assert made.messages_per_day == 40 * (8_640 + 1_440)
    assert (made.units, made.usd_per_month) == (2, 50.0)
    assert plan(replace(fleet, devices=39), TIERS["S1"], units=None).units == 1


@given(_FLEETS, _TIERS)
def test_the_fewest_units_hold_and_one_fewer_does_not(fleet: Fleet, tier_name: object) -> None:
    tier = tier_name
    made = plan(fleet, tier, units=None)  # type: ignore[arg-type]  # drawn from the tiers
    if not made.holds:
        assert made.units == made.tier.units_max
    elif made.units > 1:
        assert not plan(fleet, made.tier, units=made.units - 1).holds


@given(_FLEETS, st.sampled_from(["S1", "S2", "S3"]), st.integers(1, 9))
def test_more_units_are_never_slower_and_never_hold_less(fleet: Fleet, tier: str, units: int) -> None:
    few, more = (plan(fleet, TIERS[tier], units=count) for count in (units, units + 1))
    assert all(_seconds(more)[operation] <= seconds for operation, seconds in _seconds(few).items())
    assert more.holds or not few.holds


@given(_FLEETS, st.sampled_from(["S1", "S2", "S3"]), st.integers(1, 10))
def test_the_heartbeat_that_is_said_to_fit_fits(fleet: Fleet, tier: str, units: int) -> None:
    shortest = plan(fleet, TIERS[tier], units=units).heartbeat_s_min
    if shortest is not None:
        checks = plan(replace(fleet, heartbeat_s=shortest), TIERS[tier], units=units).checks
        assert all(check.asked <= check.allowed * (1 + 1e-9) for check in checks if check.name != "devices")


def test_the_command_prints_a_plan_and_its_exit_code_says_whether_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--devices", "10000", "--heartbeat-s", "300", "--report-window-s", "900", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["tier"], made["units"], made["holds"]) == ("S1", 10, True)
    assert main(["plan", "--devices", "600", "--tier", "F1"]) == 1
    text = capsys.readouterr().out
    assert "1 unit of F1: free" in text
    assert "DOES NOT HOLD" in text
    assert main(["plan"]) == 2
    assert main(["plan", "--devices", "0"]) == 2
