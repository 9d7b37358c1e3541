"""What goes into the agent's core, and what comes out of it.

Signals say that something happened, effects that something shall be done. All are values: `core.step` turns the one
into the other, and `agent.py` performs the effects in order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.exit_codes import ExitCode
from shared.lifecycles import ReleaseState
from shared.messages.desired import ReportedRelease
from shared.messages.events import ReleaseStatus
from shared.messages.work import Work

Document = Mapping[str, Any]
"""A JSON object from outside. `Any`: the core parses it."""

# Signals ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The agent runs: what it serves, and the release it was asked for last."""

    active_release_id: str | None
    release: ReportedRelease | None


@dataclass(frozen=True)
class Connected:
    """The hub is there, and this is the whole desired document."""

    desired: Document
    version: int


@dataclass(frozen=True)
class Disconnected:
    """The connection is gone, or could not be made (`lasted_s` is 0)."""

    lasted_s: float


@dataclass(frozen=True)
class DesiredPatched:
    """A patch of the desired document arrived; `None` deletes."""

    patch: Document
    version: int


@dataclass(frozen=True)
class TwinRead:
    """The whole desired document, read again because a patch was missed."""

    desired: Document
    version: int


@dataclass(frozen=True)
class CommandArrived:
    """The cloud called."""

    name: str
    payload: object


@dataclass(frozen=True)
class FetchDue:
    """The interval or the back-off since the last fetch is over."""


@dataclass(frozen=True)
class WorkFetched:
    """What waits at the coordinator, and which of it this device has finished already."""

    work: tuple[Work, ...]
    finished: frozenset[str]


@dataclass(frozen=True)
class FetchFailed:
    """The coordinator did not answer."""


@dataclass(frozen=True)
class WorkEnded:
    """The result of this work is in the outbox, whatever it is."""

    work_id: str


@dataclass(frozen=True)
class InstallProgressed:
    """The install of a generation reached a state."""

    generation: int
    state: ReleaseState


@dataclass(frozen=True)
class InstallEnded:
    """The install is over: without an error the release is the active one.

    `is_worth_retrying`: the reason lies outside the release (no network), so the same install may succeed later.
    """

    generation: int
    active_release_id: str | None
    error: str = ""
    is_worth_retrying: bool = False
    self_test_ms: float | None = None


@dataclass(frozen=True)
class InstallRetryDue:
    """The back-off since the last failed install is over."""

    generation: int


@dataclass(frozen=True)
class Revoked:
    """The coordinator no longer accepts this device."""


Signal = (
    Started
    | Connected
    | Disconnected
    | DesiredPatched
    | TwinRead
    | CommandArrived
    | FetchDue
    | WorkFetched
    | FetchFailed
    | WorkEnded
    | InstallProgressed
    | InstallEnded
    | InstallRetryDue
    | Revoked
)

# Effects ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connect:
    """Connect to the hub, after the back-off for this many failures in a row."""

    failures: int


@dataclass(frozen=True)
class ReadTwin:
    """Read the whole desired document again."""


@dataclass(frozen=True)
class SendHeartbeat:
    """Say that the device lives."""


@dataclass(frozen=True)
class Remember:
    """Write this to disk before anything that follows: the generation that binds the device."""

    release: ReportedRelease


@dataclass(frozen=True)
class Report:
    """Write the section `release` of the reported document."""

    release: ReportedRelease


@dataclass(frozen=True)
class Announce:
    """Put this event into the outbox."""

    status: ReleaseStatus


@dataclass(frozen=True)
class StartInstall:
    """Install this release; report its progress under this generation."""

    release_id: str
    generation: int


@dataclass(frozen=True)
class RetryInstallLater:
    """Signal InstallRetryDue after the back-off for this many failures."""

    generation: int
    failures: int


@dataclass(frozen=True)
class Fetch:
    """Fetch the work that waits at the coordinator."""


@dataclass(frozen=True)
class FetchLater:
    """Signal FetchDue: after the jittered interval when `failures` is 0, after a back-off otherwise."""

    failures: int


@dataclass(frozen=True)
class StartWork:
    """Do this work."""

    work: Work


@dataclass(frozen=True)
class ResendResult:
    """Send the remembered result of this work again."""

    work_id: str


@dataclass(frozen=True)
class Reject:
    """Something malformed or out of place came and was counted: log it."""

    what: str
    reason: str


@dataclass(frozen=True)
class Stop:
    """End the agent."""

    exit_code: ExitCode


Effect = (
    Connect
    | ReadTwin
    | SendHeartbeat
    | Remember
    | Report
    | Announce
    | StartInstall
    | RetryInstallLater
    | Fetch
    | FetchLater
    | StartWork
    | ResendResult
    | Reject
    | Stop
)
