"""Plans and progress as rows, and back: the only place that knows both."""

from collections.abc import Collection, Sequence
from dataclasses import asdict

from sqlmodel import Session, col, select

from cloud.rollouts.errors import UnknownRolloutError
from cloud.rollouts.models import RolloutDeviceRow, RolloutRow, RolloutWaveRow
from cloud.rollouts.values import (
    DeviceProgress,
    DeviceStep,
    LeftOut,
    Policy,
    Progress,
    RolloutPlan,
    WaveProgress,
)
from shared.ids import DeviceId
from shared.lifecycles import RolloutState

HOLDING = (RolloutState.RUNNING, RolloutState.HALTED)
"""States in which a rollout holds its devices: no other rollout may start on them."""


def add_plan(
    session: Session, plan: RolloutPlan, *, rollout_id: str, principal: str, role: str, now: float
) -> RolloutRow:
    """Stores a plan of which nothing has happened yet."""
    row = RolloutRow(
        rollout_id=rollout_id,
        release_id=plan.release_id,
        generation=plan.generation,
        policy=asdict(plan.policy),
        left_out=[[each.device_id, each.reason] for each in plan.left_out],
        created_at=now,
        created_by_principal=principal,
        created_by_role=role,
    )
    session.add(row)
    session.flush()  # its waves and devices refer to it
    progress = Progress.of(plan)
    session.add_all(RolloutWaveRow(rollout_id=rollout_id, number=number + 1) for number in range(len(plan.waves)))
    for position, (device, each) in enumerate(progress.devices.items()):
        session.add(RolloutDeviceRow(rollout_id=rollout_id, device_id=device, position=position, **asdict(each)))
    session.flush()
    return row


def get_rollout(session: Session, rollout_id: str, *, is_locked: bool = False) -> RolloutRow:
    """The rollout's row. Raises UnknownRolloutError.

    Args:
        session: In a transaction.
        rollout_id: As the operator gave it.
        is_locked: Whether nobody else may change the rollout until this transaction ends.
    """
    query = select(RolloutRow).where(RolloutRow.rollout_id == rollout_id)
    row = session.exec(query.with_for_update() if is_locked else query).one_or_none()
    if row is None:
        raise UnknownRolloutError(f"Expected the id of a rollout, got {rollout_id[:80]!r}")
    return row


def newest_rollouts(session: Session, *, limit: int) -> Sequence[RolloutRow]:
    """Rollouts, newest first."""
    query = select(RolloutRow).order_by(col(RolloutRow.created_at).desc(), col(RolloutRow.rollout_id).desc())
    return session.exec(query.limit(limit)).all()


def rollouts_in(session: Session, states: Collection[RolloutState]) -> Sequence[RolloutRow]:
    """Rollouts in any of these states, oldest first."""
    query = select(RolloutRow).where(col(RolloutRow.state).in_(states)).order_by(col(RolloutRow.created_at))
    return session.exec(query).all()


def load_plan(session: Session, row: RolloutRow) -> RolloutPlan:
    """The plan as it was made."""
    waves: dict[int, list[DeviceId]] = {}
    for device in _device_rows(session, row.rollout_id):
        waves.setdefault(device.wave, []).append(DeviceId(device.device_id))
    return RolloutPlan(
        release_id=row.release_id,
        generation=row.generation,
        policy=Policy(**{**row.policy, "wave_fractions": tuple(row.policy["wave_fractions"])}),
        waves=tuple(tuple(devices) for _, devices in sorted(waves.items())),
        left_out=tuple(LeftOut(DeviceId(device), reason) for device, reason in row.left_out),
    )


def load_progress(session: Session, row: RolloutRow) -> Progress:
    """How far it is."""
    return Progress(
        wave=row.wave,
        waves=tuple(
            WaveProgress(started_at=wave.started_at, clock_from=wave.clock_from, finished_at=wave.finished_at)
            for wave in _wave_rows(session, row.rollout_id)
        ),
        devices={DeviceId(device.device_id): _progress(device) for device in _device_rows(session, row.rollout_id)},
    )


def save_progress(session: Session, row: RolloutRow, *, before: Progress, after: Progress) -> None:
    """Stores what changed between two values of a rollout's progress."""
    row.wave = after.wave
    session.add(row)
    for wave, was, now in zip(_wave_rows(session, row.rollout_id), before.waves, after.waves, strict=True):
        if was != now:
            wave.sqlmodel_update(asdict(now))
            session.add(wave)
    for device, each in after.devices.items():
        if each != before.devices[device]:
            changed = session.get_one(RolloutDeviceRow, (row.rollout_id, device))
            changed.sqlmodel_update(asdict(each))
            session.add(changed)
    session.flush()


def _wave_rows(session: Session, rollout_id: str) -> Sequence[RolloutWaveRow]:
    query = select(RolloutWaveRow).where(RolloutWaveRow.rollout_id == rollout_id)
    return session.exec(query.order_by(col(RolloutWaveRow.number))).all()


def _device_rows(session: Session, rollout_id: str) -> Sequence[RolloutDeviceRow]:
    query = select(RolloutDeviceRow).where(RolloutDeviceRow.rollout_id == rollout_id)
    return session.exec(query.order_by(col(RolloutDeviceRow.position))).all()


def _progress(row: RolloutDeviceRow) -> DeviceProgress:
    return DeviceProgress(
        wave=row.wave,
        generation=row.generation,
        step=DeviceStep(row.step),
        asked_at=row.asked_at,
        is_delivered=row.is_delivered,
        judged_from=row.judged_from,
        reason=row.reason,
    )
