"""The agent's decisions, as one pure function: `step(state, signal) -> (state, effects)`.

No clock, no network, no randomness: delays are named by how often something failed, and the shell draws them. That is
what lets a test put thousands of orders of signals through it in a second.

What it holds to, whatever comes in whatever order:
- a desired release of an older generation than the accepted one is refused, the same one changes nothing;
- an install and training never run at the same time: the device is small, and the switch must not wait for a round;
- a malformed document or command is counted and changes nothing else;
- each piece of work runs once at a time, and one that is finished is answered again, not done again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge_agent.signals import (
    Announce,
    CommandArrived,
    Connect,
    Connected,
    DesiredPatched,
    Disconnected,
    Document,
    Effect,
    Fetch,
    FetchDue,
    FetchFailed,
    FetchLater,
    InstallEnded,
    InstallProgressed,
    InstallRetryDue,
    ReadTwin,
    Reject,
    Remember,
    Report,
    ResendResult,
    RetryInstallLater,
    Revoked,
    SendHeartbeat,
    Signal,
    Started,
    StartInstall,
    StartWork,
    Stop,
    TwinRead,
    WorkEnded,
    WorkFetched,
)
from shared.exit_codes import ExitCode
from shared.hub.documents import merge
from shared.hub.port import CommandReply
from shared.lifecycles import ReleaseState
from shared.messages.base import MalformedMessageError
from shared.messages.desired import DesiredDocument, DesiredRelease, ReportedRelease
from shared.messages.events import ReleaseStatus
from shared.messages.work import DOORBELL, Work

STABLE_S = 30.0
"""A connection that lasted this long forgives the failures before it; a shorter one counts as one more."""
INSTALL_FAILURES_MAX = 500
"""Tries of one release while the network fails, about eight hours; then it has failed, and a new generation may ask."""
WORK_QUEUE_MAX = 16
"""Fetched work that waits; the rest stays at the coordinator and is fetched again."""
ERROR_CHARS_MAX = 500
_TERMINAL = frozenset({ReleaseState.ACTIVE, ReleaseState.FAILED})


@dataclass(frozen=True)
class State:
    """All that the decisions rest on."""

    active_release_id: str | None = None
    release: ReportedRelease | None = None
    """The newest desired release this device accepted, and how far it is."""
    desired: Document = field(default_factory=dict)
    desired_version: int = 0
    is_connected: bool = False
    connect_failures: int = 0
    installing: int | None = None
    """The generation being installed; it may be older than `release`, which then comes next."""
    install_failures: int = 0
    is_install_waiting: bool = False
    """Between a failed install and its next try."""
    training: str | None = None
    """The work under way."""
    queue: tuple[Work, ...] = ()
    is_fetching: bool = False
    fetch_again: bool = False
    """The doorbell rang during a fetch."""
    fetch_failures: int = 0
    rejected: int = 0
    is_stopped: bool = False


Step = tuple[State, list[Effect]]


def step(state: State, signal: Signal) -> Step:
    """The next state, and what to do, in this order. Never raises, whatever the cloud sent."""
    if state.is_stopped:
        return state, []
    match signal:
        case Started():
            return _start(state, signal)
        case Connected(desired, version):
            return _connect(state, desired, version)
        case Disconnected(lasted_s):
            failures = 0 if lasted_s >= STABLE_S else state.connect_failures + 1
            return replace(state, is_connected=False, connect_failures=failures), [Connect(failures)]
        case TwinRead(desired, version):
            return _read_desired(replace(state, desired_version=version), desired)
        case DesiredPatched(patch, version):
            return _patch_desired(state, patch, version)
        case CommandArrived(name, payload):
            return _command(state, name, payload)
        case FetchDue():
            return _fetch(state)
        case WorkFetched(work, finished):
            return _take_work(state, work, finished)
        case FetchFailed():
            failures = state.fetch_failures + 1
            return replace(state, is_fetching=False, fetch_again=False, fetch_failures=failures), [FetchLater(failures)]
        case WorkEnded(work_id):
            ended = replace(state, training=None) if state.training == work_id else state
            return _next_activity(ended)
        case InstallProgressed(generation, reached):
            return _progress(state, generation, reached)
        case InstallEnded():
            return _end_install(state, signal)
        case InstallRetryDue(generation):
            is_current = state.release is not None and state.release.generation == generation
            return _next_activity(replace(state, is_install_waiting=False)) if is_current else (state, [])
        case Revoked():
            return replace(state, is_stopped=True), [Stop(ExitCode.REVOKED)]


def reply_to(name: str, payload: object) -> CommandReply:
    """The answer to a command, at once: it never waits for what the command starts."""
    if name != DOORBELL:
        return CommandReply(404, {"error": f"Expected the command {DOORBELL!r}, got {name[:80]!r}"})
    if not (payload is None or isinstance(payload, Mapping)):
        return CommandReply(400, {"error": "Expected a JSON object or nothing as payload, got another value"})
    return CommandReply(200, {})


# Release ------------------------------------------------------------------------------------------------------------


def _start(state: State, signal: Started) -> Step:
    """Takes up where the last run of the agent ended: an install under way begins anew, from the partial download."""
    release = signal.release
    state = replace(state, active_release_id=signal.active_release_id, release=release)
    if release is not None and release.state is not ReleaseState.FAILED:
        is_active = release.release_id == signal.active_release_id
        release = _updated(release, ReleaseState.ACTIVE if is_active else ReleaseState.PENDING, state)
        state = replace(state, release=release)
    state, effects = _next_activity(state)
    return state, [Connect(0), FetchLater(0), *effects]


def _connect(state: State, desired: Document, version: int) -> Step:
    state = replace(state, is_connected=True, desired_version=version)
    effects: list[Effect] = [SendHeartbeat()]
    state, from_desired = _read_desired(state, desired)
    if state.release is not None and not any(isinstance(effect, Report) for effect in from_desired):
        effects.append(Report(state.release))
    state, fetching = _fetch(state)
    return state, [*effects, *from_desired, *fetching]


def _patch_desired(state: State, patch: Document, version: int) -> Step:
    if version <= state.desired_version:
        return state, []
    if version > state.desired_version + 1:
        return state, [ReadTwin()]
    try:
        desired = merge(state.desired, patch)
    except RecursionError:
        return _reject(state, "desired document", "Expected a document, got one nested too deeply")
    return _read_desired(replace(state, desired_version=version), desired)


def _read_desired(state: State, desired: Document) -> Step:
    state = replace(state, desired=desired)
    try:
        wanted = DesiredDocument.parse_document(desired).release
    except MalformedMessageError as error:
        return _reject(state, "desired document", error.message)
    return (state, []) if wanted is None else _accept(state, wanted)


def _accept(state: State, wanted: DesiredRelease) -> Step:
    known = state.release
    if known is not None and wanted.generation < known.generation:
        return _reject(
            state, "desired release", f"Expected generation {known.generation} or newer, got {wanted.generation}"
        )
    if known is not None and wanted.generation == known.generation:
        if wanted.release_id == known.release_id:
            return state, []
        reason = f"Expected release {known.release_id} in generation {known.generation}, got {wanted.release_id}"
        return _reject(state, "desired release", reason)
    is_active = wanted.release_id == state.active_release_id and state.installing is None
    release = ReportedRelease(
        generation=wanted.generation,
        release_id=wanted.release_id,
        state=ReleaseState.ACTIVE if is_active else ReleaseState.PENDING,
        active_release_id=state.active_release_id,
    )
    state = replace(state, release=release, install_failures=0, is_install_waiting=False)
    state, effects = _next_activity(state)
    return state, [Remember(release), Report(release), _announcement(release), *effects]


def _progress(state: State, generation: int, reached: ReleaseState) -> Step:
    """Reports a state on the way; the end is InstallEnded's to say, and an older generation's progress is old news."""
    release = state.release
    is_news = release is not None and release.generation == generation == state.installing
    if not is_news or release is None or reached in _TERMINAL or reached is release.state:
        return state, []
    release = _updated(release, reached, state)
    return replace(state, release=release), [Report(release), _announcement(release)]


def _end_install(state: State, ended: InstallEnded) -> Step:
    if state.installing != ended.generation:
        return state, []
    state = replace(state, installing=None, active_release_id=ended.active_release_id)
    release = state.release
    if release is None or release.generation != ended.generation:
        state, effects = _settle_newer(state)
        return state, effects
    if ended.error and ended.is_worth_retrying and state.install_failures + 1 < INSTALL_FAILURES_MAX:
        return _retry_install(state, release, ended.error)
    outcome = ReleaseState.FAILED if ended.error else ReleaseState.ACTIVE
    release = _updated(release, outcome, state, error=ended.error)
    state = replace(state, release=release, install_failures=0)
    state, effects = _next_activity(state)
    announcement = _announcement(release, self_test_ms=ended.self_test_ms)
    return state, [Remember(release), Report(release), announcement, *effects]


def _settle_newer(state: State) -> Step:
    """After an install that a newer generation overtook: the newer one may ask for what is active now."""
    release = state.release
    if release is not None and release.state is ReleaseState.PENDING and release.release_id == state.active_release_id:
        release = _updated(release, ReleaseState.ACTIVE, state)
        state, effects = _next_activity(replace(state, release=release))
        return state, [Remember(release), Report(release), _announcement(release), *effects]
    return _next_activity(state)


def _retry_install(state: State, release: ReportedRelease, error: str) -> Step:
    release = _updated(release, ReleaseState.PENDING, state, error=error)
    failures = state.install_failures + 1
    state = replace(state, release=release, install_failures=failures, is_install_waiting=True)
    state, effects = _next_activity(state)
    return state, [Report(release), RetryInstallLater(release.generation, failures), *effects]


def _updated(release: ReportedRelease, reached: ReleaseState, state: State, *, error: str = "") -> ReportedRelease:
    changes = {
        "state": reached,
        "error": error[:ERROR_CHARS_MAX],
        "active_release_id": state.active_release_id,
    }
    return release.model_copy(update=changes)


def _announcement(release: ReportedRelease, *, self_test_ms: float | None = None) -> Announce:
    return Announce(
        ReleaseStatus(
            release_id=release.release_id or "",
            generation=release.generation,
            state=release.state,
            error=release.error,
            active_release_id=release.active_release_id,
            self_test_ms=self_test_ms,
        )
    )


# Work ---------------------------------------------------------------------------------------------------------------


def _command(state: State, name: str, payload: object) -> Step:
    reply = reply_to(name, payload)
    return _fetch(state) if reply.status == 200 else _reject(state, "command", str(reply.payload["error"]))


def _fetch(state: State) -> Step:
    if state.is_fetching:
        return replace(state, fetch_again=True), []
    return replace(state, is_fetching=True, fetch_again=False), [Fetch()]


def _take_work(state: State, work: tuple[Work, ...], finished: frozenset[str]) -> Step:
    known = {item.work_id for item in state.queue} | {state.training}
    new = _distinct(item for item in work if item.work_id not in known and item.work_id not in finished)
    queue = (*state.queue, *new)[:WORK_QUEUE_MAX]
    rang_again = state.fetch_again
    state = replace(state, is_fetching=False, fetch_again=False, fetch_failures=0, queue=queue)
    state, effects = _next_activity(state)
    resent = [ResendResult(item.work_id) for item in work if item.work_id in finished]
    if not rang_again:
        return state, [*resent, *effects, FetchLater(0)]
    state, fetching = _fetch(state)
    return state, [*resent, *effects, *fetching]


def _distinct(items: Any) -> tuple[Work, ...]:  # Any: any iterable of Work
    return tuple({item.work_id: item for item in items}.values())


# Both ---------------------------------------------------------------------------------------------------------------


def _next_activity(state: State) -> Step:
    """Starts one thing when nothing runs: a release that waits comes before work that waits."""
    if state.installing is not None or state.training is not None:
        return state, []
    release = state.release
    if release is not None and release.state not in _TERMINAL and not state.is_install_waiting:
        start = StartInstall(release.release_id or "", release.generation)
        return replace(state, installing=release.generation), [start]
    if state.queue:
        work, *rest = state.queue
        return replace(state, training=work.work_id, queue=tuple(rest)), [StartWork(work)]
    return state, []


def _reject(state: State, what: str, reason: str) -> Step:
    return replace(state, rejected=state.rejected + 1), [Reject(what, reason[:ERROR_CHARS_MAX])]
