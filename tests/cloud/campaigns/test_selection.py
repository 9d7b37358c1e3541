from typing import Any

import pytest

from cloud.campaigns.selection import Wanted, select, shortfall, why_not
from shared.api.devices import Device
from shared.lifecycles import ReleaseState

WANTED = Wanted(task="digits", task_version="1")


def _device(name: str = "press-01", **fields: Any) -> Device:
    known: dict[str, Any] = {"enrolled_at": 0.0, "is_online": True, "tasks": {"digits": "1"}, **fields}
    return Device(device_id=name, **known)


def test_asks_a_device_that_is_online_and_has_the_task() -> None:
    assert why_not(_device(), WANTED) == ""


@pytest.mark.parametrize(
    ("device", "wanted", "reason"),
    [
        (_device(is_revoked=True), WANTED, "Revoked"),
        (_device(), Wanted("digits", "1", only=("press-02",)), "Not among the campaign's devices"),
        (_device(tasks={}), WANTED, "Task 'digits' is not installed"),
        (_device(tasks={"digits": "2"}), WANTED, "Expected task 'digits' in version 1, the device has 2"),
        (
            _device(),
            Wanted("digits", "1", refused={"press-01": "Budget spent"}),
            "Refused before in this campaign: Budget spent",
        ),
        (
            _device(),
            Wanted("digits", "1", takes={"press-01": 3}, takes_max=3),
            "Has taken part 3 times, all that the campaign's privacy budget covers",
        ),
        (_device(is_online=False), WANTED, "Offline"),
        (
            _device(codecs=["all", "float32"]),
            Wanted("digits", "1", summed="random-k=0.1"),
            "Cannot compress with random-k, as all of a secure sum must",
        ),
        (_device(release_state=ReleaseState.DOWNLOADING), WANTED, "Installs a release (downloading)"),
        (_device(desired_release_id="r-2", release_id="r-1"), WANTED, "Is asked to install release r-2"),
    ],
)
def test_says_why_a_device_is_not_asked(device: Device, wanted: Wanted, reason: str) -> None:
    assert why_not(device, wanted) == reason


def test_a_device_that_could_not_install_is_asked() -> None:
    device = _device(desired_release_id="r-2", release_id="r-1", release_state=ReleaseState.FAILED)
    assert why_not(device, WANTED) == ""


@pytest.mark.parametrize("state", [ReleaseState.ACTIVE, ReleaseState.FAILED, None])
def test_a_device_that_is_done_with_its_release_is_asked(state: ReleaseState | None) -> None:
    assert why_not(_device(release_state=state), WANTED) == ""


def test_without_privacy_nobody_has_taken_part_too_often() -> None:
    assert why_not(_device(), Wanted("digits", "1", takes={"press-01": 99})) == ""


def test_sorts_the_fleet_and_counts_the_reasons() -> None:
    fleet = [_device("c"), _device("a"), _device("b", is_online=False), _device("d", is_online=False)]

    selection = select(fleet, WANTED)

    assert selection.chosen == ("a", "c")
    assert selection.excluded == {"b": "Offline", "d": "Offline"}
    assert shortfall(selection, quorum=3) == "Expected at least 3 devices to ask, got 2 (2 x Offline)"


def test_an_empty_fleet_is_said_so() -> None:
    assert "no device is enrolled" in shortfall(select([], WANTED), quorum=1)
