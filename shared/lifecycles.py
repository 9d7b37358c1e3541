"""Lifecycles as tables: state and event to next state. A pair without a row is refused, never ignored by accident."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from shared.errors import FleetlearnError

StateT = TypeVar("StateT", bound=StrEnum)
EventT = TypeVar("EventT", bound=StrEnum)


class IllegalTransitionError(FleetlearnError):
    """An event that makes no sense in this state."""

    code = "illegal_transition"


def advance(table: Mapping[tuple[StateT, EventT], StateT], state: StateT, event: EventT) -> StateT:
    """The next state. Raises IllegalTransitionError where the table has no row."""
    try:
        return table[state, event]
    except KeyError:
        expected = ", ".join(sorted(e.value for s, e in table if s == state)) or "nothing more"
        raise IllegalTransitionError(f"Expected {expected} in state {state.value}, got {event.value}") from None


class ReleaseState(StrEnum):
    """How far a release is on one device. The device serves the active one until the switch, whatever happens."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    TESTING = "testing"
    ACTIVATING = "activating"
    ACTIVE = "active"
    FAILED = "failed"


class ReleaseEvent(StrEnum):
    START = "start"
    DOWNLOADED = "downloaded"
    VERIFIED = "verified"
    TESTED = "tested"
    SWITCHED = "switched"
    FAIL = "fail"
    RESTART = "restart"
    """The agent started again: whatever was under way begins anew, from the partial download."""


_IN_WORK = (
    ReleaseState.PENDING,
    ReleaseState.DOWNLOADING,
    ReleaseState.VERIFYING,
    ReleaseState.TESTING,
    ReleaseState.ACTIVATING,
)
RELEASE_TRANSITIONS: Mapping[tuple[ReleaseState, ReleaseEvent], ReleaseState] = {
    (ReleaseState.PENDING, ReleaseEvent.START): ReleaseState.DOWNLOADING,
    (ReleaseState.DOWNLOADING, ReleaseEvent.DOWNLOADED): ReleaseState.VERIFYING,
    (ReleaseState.VERIFYING, ReleaseEvent.VERIFIED): ReleaseState.TESTING,
    (ReleaseState.TESTING, ReleaseEvent.TESTED): ReleaseState.ACTIVATING,
    (ReleaseState.ACTIVATING, ReleaseEvent.SWITCHED): ReleaseState.ACTIVE,
    **{(state, ReleaseEvent.FAIL): ReleaseState.FAILED for state in _IN_WORK},
    **{(state, ReleaseEvent.RESTART): ReleaseState.PENDING for state in _IN_WORK},
}


class RolloutState(StrEnum):
    PLANNED = "planned"
    RUNNING = "running"
    HALTED = "halted"
    """A gate failed; the reason is stored. An operator may resume or stop it."""
    STOPPED = "stopped"
    DONE = "done"


class RolloutEvent(StrEnum):
    START = "start"
    HALT = "halt"
    RESUME = "resume"
    STOP = "stop"
    FINISH = "finish"


ROLLOUT_TRANSITIONS: Mapping[tuple[RolloutState, RolloutEvent], RolloutState] = {
    (RolloutState.PLANNED, RolloutEvent.START): RolloutState.RUNNING,
    (RolloutState.PLANNED, RolloutEvent.STOP): RolloutState.STOPPED,
    (RolloutState.RUNNING, RolloutEvent.HALT): RolloutState.HALTED,
    (RolloutState.RUNNING, RolloutEvent.STOP): RolloutState.STOPPED,
    (RolloutState.RUNNING, RolloutEvent.FINISH): RolloutState.DONE,
    (RolloutState.HALTED, RolloutEvent.RESUME): RolloutState.RUNNING,
    (RolloutState.HALTED, RolloutEvent.STOP): RolloutState.STOPPED,
}


class JobState(StrEnum):
    """A durable piece of work in the cloud: training, packaging, a campaign."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    """An operator's wish: no process runs it, and it goes on from its own checkpoints when it is resumed."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobEvent(StrEnum):
    START = "start"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"
    """Its process died with the coordinator: it is queued again and resumes from its own checkpoints."""


JOB_TRANSITIONS: Mapping[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.START): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, JobEvent.PAUSE): JobState.PAUSED,
    (JobState.RUNNING, JobEvent.FINISH): JobState.DONE,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.PAUSE): JobState.PAUSED,
    (JobState.RUNNING, JobEvent.RESTART): JobState.QUEUED,
    (JobState.PAUSED, JobEvent.RESUME): JobState.QUEUED,
    (JobState.PAUSED, JobEvent.CANCEL): JobState.CANCELLED,
}


class VersionStage(StrEnum):
    """Where a model version stands in the registry."""

    CANDIDATE = "candidate"
    APPROVED = "approved"
    RETIRED = "retired"
