"""Why a device is not where it should be: one line for each reason, none when it is."""

from dataclasses import replace

import pytest

from cloud.devices.target import Standing, why_not_at_target
from shared.lifecycles import ReleaseState

AT_TARGET = Standing(
    is_revoked=False,
    last_seen_at=1000.0,
    desired_release_id="r2",
    desired_generation=2,
    release_id="r2",
    asked_release_id="r2",
    release_state=ReleaseState.ACTIVE,
    release_generation=2,
    release_error="",
)
BEHIND = replace(AT_TARGET, release_id="r1", asked_release_id="r1", release_generation=1)
FAILED = replace(
    AT_TARGET, release_id="r1", release_state=ReleaseState.FAILED, release_error="Expected opset 21, got 25"
)


@pytest.mark.parametrize(
    ("standing", "now", "expected"),
    [
        (AT_TARGET, 1001, ""),
        (AT_TARGET, 9999, ""),
        (replace(AT_TARGET, desired_release_id=None), 1001, ""),
        (replace(AT_TARGET, is_revoked=True), 1001, "revoked"),
        (BEHIND, 1001, "waiting for it to take up release r2"),
        (BEHIND, 1100, "offline for 100 s"),
        (BEHIND, 1000 + 7300, "offline for 2 h"),
        (replace(BEHIND, last_seen_at=None), 1001, "never seen since it enrolled"),
        (
            replace(BEHIND, asked_release_id="r2", release_generation=2, release_state=ReleaseState.DOWNLOADING),
            1001,
            "downloading release r2",
        ),
        (FAILED, 9999, "release r2 failed: Expected opset 21, got 25"),
        (replace(FAILED, release_generation=1), 1001, "waiting for it to take up release r2"),
    ],
)
def test_says_in_one_line_why_not(standing: Standing, now: float, expected: str) -> None:
    assert why_not_at_target(standing, now=now, heartbeat_s=10) == expected
