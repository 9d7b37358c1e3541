"""Rollouts as an operator handles them: plan, start, stop, resume. One transaction is the caller's.

Starting, halting and the rest follow the table in `shared.lifecycles`. A running or halted rollout holds its devices;
what moves them is `cloud.rollouts.controller`.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select, update

from cloud.rollouts import store
from cloud.rollouts.errors import (
    IllegalRolloutTransitionError,
    NothingToMoveError,
    RolloutConflictError,
    StalePlanError,
)
from cloud.rollouts.gates import resumed
from cloud.rollouts.models import RolloutDeviceRow, RolloutGenerationRow, RolloutRow
from cloud.rollouts.observations import newest_generation, observe
from cloud.rollouts.planner import plan
from cloud.rollouts.values import Candidate, DeviceStep, Policy, Target
from shared.api.rollouts import RolloutCreate
from shared.ids import DeviceId
from shared.lifecycles import ROLLOUT_TRANSITIONS, IllegalTransitionError, RolloutEvent, RolloutState, advance

_MAY_START = (RolloutState.PLANNED, *store.HOLDING)
_REASONS_SHOWN = 3


def create_rollout(
    session: Session,
    request: RolloutCreate,
    *,
    target: Target,
    inventory: Sequence[Candidate],
    rollout_id: str,
    principal: str,
    role: str,
    now: float,
) -> RolloutRow:
    """Plans a rollout and stores the plan; nothing moves.

    Raises:
        InvalidPolicyError: Waves or gates contradict themselves.
        NothingToMoveError: Every device is left out.
        RolloutConflictError: Another rollout was planned in the same moment.
    """
    made = plan(target, policy_of(request), inventory, generation_floor=_generation_floor(session))
    if not made.devices:
        reasons = "; ".join(f"{each.device_id}: {each.reason}" for each in made.left_out[:_REASONS_SHOWN])
        raise NothingToMoveError(
            f"Expected a device that can move to release {target.release_id}, "
            f"got {len(made.left_out)} that need not or cannot; {reasons or 'no device is enrolled.'}"
        )
    _take_generation(session, made.generation, rollout_id=rollout_id)
    return store.add_plan(session, made, rollout_id=rollout_id, principal=principal, role=role, now=now)


def start_rollout(session: Session, rollout_id: str, *, now: float) -> RolloutRow:
    """Lets a planned rollout run.

    Raises:
        UnknownRolloutError: There is none.
        IllegalRolloutTransitionError: It was started before.
        RolloutConflictError: Another rollout holds one of its devices.
        StalePlanError: A device was asked for something else since the plan was made.
    """
    store.get_rollout(session, rollout_id)
    others = _locked(session, _MAY_START)  # two that start at once wait for each other
    row = store.get_rollout(session, rollout_id, is_locked=True)
    _move(row, RolloutEvent.START)
    progress = store.load_progress(session, row)
    holding = [other for other in others if other.state in store.HOLDING and other.rollout_id != rollout_id]
    _check_free(session, row, progress.devices.keys(), holding)
    if newest_generation(session, progress.devices) >= row.generation:
        raise StalePlanError(
            "Expected a plan that is newer than all that its devices were asked for, got an older one",
            hint="Plan the rollout again.",
        )
    row.started_at = now
    session.add(row)
    return row


def stop_rollout(session: Session, rollout_id: str, *, principal: str, now: float) -> RolloutRow:
    """Ends a rollout where it is: no further device is asked, and those that were stay as they are.

    Raises:
        UnknownRolloutError: There is none.
        IllegalRolloutTransitionError: It has ended before.
    """
    row = store.get_rollout(session, rollout_id, is_locked=True)
    _move(row, RolloutEvent.STOP)
    asked = asked_devices(session, rollout_id)
    row.reason = f"Stopped by {principal} after {len(asked)} devices were asked."
    row.finished_at = now
    session.add(row)
    return row


def resume_rollout(session: Session, rollout_id: str, *, now: float) -> RolloutRow:
    """Lets a halted rollout go on: failures are forgiven, and devices that failed are asked again.

    Raises:
        UnknownRolloutError: There is none.
        IllegalRolloutTransitionError: It is not halted.
    """
    row = store.get_rollout(session, rollout_id, is_locked=True)
    _move(row, RolloutEvent.RESUME)
    before = store.load_progress(session, row)
    newest = max(_generation_floor(session), newest_generation(session, before.devices))
    _take_generation(session, newest + 1, rollout_id=rollout_id)
    row.generation, row.reason = newest + 1, ""
    observed = observe(session, before, release_id=row.release_id)
    after = resumed(before, observed, generation=row.generation, now=now)
    store.save_progress(session, row, before=before, after=after)
    return row


def ask_again(session: Session) -> None:
    """The hub lost its data: what it was told for running rollouts counts as not delivered."""
    running = select(RolloutRow.rollout_id).where(RolloutRow.state == RolloutState.RUNNING)
    undelivered = update(RolloutDeviceRow).where(col(RolloutDeviceRow.rollout_id).in_(running))
    session.exec(undelivered.where(col(RolloutDeviceRow.step) == DeviceStep.ASKED).values(is_delivered=False))


def end_rollout(row: RolloutRow, event: RolloutEvent, *, reason: str, now: float) -> None:
    """Halts or finishes, as a step decided."""
    _move(row, event)
    row.reason = reason
    row.finished_at = now if event is RolloutEvent.FINISH else None


def asked_devices(session: Session, rollout_id: str) -> list[DeviceId]:
    """Devices that were asked so far, in the plan's order."""
    query = select(RolloutDeviceRow.device_id).where(
        RolloutDeviceRow.rollout_id == rollout_id, col(RolloutDeviceRow.asked_at).is_not(None)
    )
    return [DeviceId(device) for device in session.exec(query.order_by(col(RolloutDeviceRow.position)))]


def policy_of(request: RolloutCreate) -> Policy:
    """The gates in a request."""
    return Policy(
        wave_fractions=tuple(request.wave_fractions),
        soak_s=request.soak_s,
        wave_timeout_s=request.wave_timeout_s,
        failures_max=request.failures_max,
        error_rate_max=request.error_rate_max,
    )


def _move(row: RolloutRow, event: RolloutEvent) -> None:
    try:
        row.state = advance(ROLLOUT_TRANSITIONS, RolloutState(row.state), event)
    except IllegalTransitionError as error:
        raise IllegalRolloutTransitionError(
            f"Rollout {row.rollout_id}: {error.message}", hint="`fleetlearn rollouts show` tells its state."
        ) from error


def _locked(session: Session, states: Collection[RolloutState]) -> Sequence[RolloutRow]:
    query = select(RolloutRow).where(col(RolloutRow.state).in_(states)).order_by(col(RolloutRow.rollout_id))
    return session.exec(query.with_for_update().execution_options(populate_existing=True)).all()


def _check_free(
    session: Session, row: RolloutRow, planned: Collection[DeviceId], holding: Sequence[RolloutRow]
) -> None:
    for other in holding:
        shared = sorted(planned & store.load_progress(session, other).devices.keys())
        if shared:
            raise RolloutConflictError(
                f"Expected devices that no other rollout holds, got {shared[0]} and {len(shared) - 1} more, "
                f"which the {other.state} rollout {other.rollout_id} holds",
                hint=f"Wait for it, or stop it: fleetlearn rollouts stop {other.rollout_id}",
            )


def _generation_floor(session: Session) -> int:
    return session.exec(select(func.max(RolloutGenerationRow.generation))).one() or 0


def _take_generation(session: Session, generation: int, *, rollout_id: str) -> None:
    session.add(RolloutGenerationRow(generation=generation, rollout_id=rollout_id))
    try:
        session.flush()
    except IntegrityError as error:
        raise RolloutConflictError(
            f"Expected generation {generation} to be free, but another rollout took it in the same moment",
            hint="Try again.",
        ) from error
