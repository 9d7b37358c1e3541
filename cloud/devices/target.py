"""Why a device is not where it should be, in one line: the first thing an operator asks. Pure."""

from dataclasses import dataclass

from shared.lifecycles import ReleaseState


@dataclass(frozen=True)
class Standing:
    """What is known of one device; times in seconds since the epoch."""

    is_revoked: bool
    last_seen_at: float | None
    desired_release_id: str | None
    desired_generation: int
    release_id: str | None
    """What it serves."""
    asked_release_id: str | None
    release_state: ReleaseState | None
    release_generation: int
    """Of the newest status of a release."""
    release_error: str
    is_in_hub: bool = False
    """Unless the hub was told to forget it."""


def is_online(last_seen_at: float | None, *, now: float, heartbeat_s: float) -> bool:
    """Whether the device was seen within three heartbeats."""
    return last_seen_at is not None and now - last_seen_at <= 3 * heartbeat_s


def why_not_at_target(standing: Standing, *, now: float, heartbeat_s: float) -> str:
    """One line, empty when the device serves what it should."""
    target = standing.desired_release_id
    if standing.is_revoked:
        return "revoked; the hub was not told yet" if standing.is_in_hub else "revoked"
    if target is None or (standing.release_id == target and standing.release_state in (None, ReleaseState.ACTIVE)):
        return ""
    is_answer = standing.asked_release_id == target and standing.release_generation >= standing.desired_generation
    if is_answer and standing.release_state == ReleaseState.FAILED:
        return f"release {target} failed: {standing.release_error or 'no reason given'}"
    if standing.last_seen_at is None:
        return "never seen since it enrolled"
    if not is_online(standing.last_seen_at, now=now, heartbeat_s=heartbeat_s):
        return f"offline for {_duration(now - standing.last_seen_at)}"
    if is_answer and standing.release_state is not None and standing.release_state != ReleaseState.ACTIVE:
        return f"{standing.release_state.value} release {target}"
    return f"waiting for it to take up release {target}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"
