"""The owner's limits on training: each refuses with its reason, and what is counted survives a restart."""

import re
import time
from pathlib import Path

import pytest

from edge_agent.surroundings import TrainingGate, on_charger, outgoing_interface
from edge_agent.training_limits import Surroundings, TrainingLimits, Window, refusal

FINE = Surroundings(on_charger=True, interface="eth0", minute=12 * 60, begun_today=0)


def _now(on_charger: bool, interface: str, minute: int, begun_today: int) -> Surroundings:
    return Surroundings(on_charger, interface, minute, begun_today)


NOON = time.mktime((2026, 11, 26, 12, 0, 0, 0, 0, -1))
ROUTES = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
wwan0 00000000 0101A8C0 0003 0 0 700 00000000 0 0 0
eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0
eth0 0000A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0
"""


@pytest.mark.parametrize(
    ("limits", "otherwise", "reason"),
    [
        (TrainingLimits(only_on_charger=True), _now(False, "eth0", 720, 0), "on battery"),
        (TrainingLimits(metered_interfaces=("ppp*", "wwan*")), _now(True, "wwan0", 720, 0), "got wwan0"),
        (TrainingLimits(window=Window.parse("01:00-05:30")), _now(True, "eth0", 330, 0), "01:00-05:30.*05:30"),
        (TrainingLimits(a_day_max=2), _now(True, "eth0", 720, 2), "at most 2 trainings a day"),
    ],
)
def test_each_limit_refuses_with_its_reason_and_nothing_else(
    limits: TrainingLimits, otherwise: Surroundings, reason: str
) -> None:
    assert re.search(reason, refusal(limits, otherwise))
    assert refusal(TrainingLimits(), otherwise) == ""
    if limits.window is None:
        assert refusal(limits, FINE) == ""


def test_a_window_may_pass_midnight_and_ends_before_its_end() -> None:
    night = Window.parse("22:00-06:00")
    assert [night.holds(hour * 60) for hour in (21, 22, 0, 5, 6)] == [False, True, True, True, False]
    day = Window.parse("09:30-17:00")
    assert [day.holds(minute) for minute in (569, 570, 1019, 1020)] == [False, True, True, False]
    assert str(night) == "22:00-06:00"


@pytest.mark.parametrize("text", ["", "22:00", "25:00-06:00", "22:60-06:00", "a-b", "1-2-3"])
def test_refuses_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError):
        Window.parse(text)


def _supply(folder: Path, name: str, **facts: str) -> None:
    (folder / name).mkdir(parents=True)
    for fact, value in facts.items():
        (folder / name / fact).write_text(value + "\n")


def test_reads_power_as_the_kernel_tells_it(tmp_path: Path) -> None:
    assert on_charger(tmp_path / "nothing")
    _supply(tmp_path / "off", "BAT0", type="Battery", status="Discharging")
    _supply(tmp_path / "off", "AC", type="Mains", online="0")
    assert not on_charger(tmp_path / "off")
    _supply(tmp_path / "on", "BAT0", type="Battery", status="Discharging")
    _supply(tmp_path / "on", "usb", type="USB", online="1")
    assert on_charger(tmp_path / "on")
    _supply(tmp_path / "mouse", "hid", type="Battery", status="Discharging", scope="Device")
    assert on_charger(tmp_path / "mouse")


def test_reads_the_route_that_traffic_takes(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    assert outgoing_interface(routes) == ""
    routes.write_text(ROUTES)
    assert outgoing_interface(routes) == "eth0"
    routes.write_text(ROUTES.replace("700", "50"))
    assert outgoing_interface(routes) == "wwan0"


def test_counts_each_work_once_a_day_over_restarts(tmp_path: Path) -> None:
    def gate(now: float) -> TrainingGate:
        return TrainingGate(TrainingLimits(a_day_max=2), tmp_path / "begun.json", now=lambda: now)

    assert [gate(NOON).refusal(work) for work in ("a", "b", "a")] == ["", "", ""]
    assert "at most 2" in gate(NOON + 60).refusal("c")
    assert gate(NOON + 24 * 3600).refusal("c") == ""
