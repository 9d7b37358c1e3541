"""Campaigns as operators ask for them and see them. Knows no HTTP, and runs nothing: its job does."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlmodel import Session, col, select

from cloud.campaigns.errors import InvalidCampaignError, UnknownCampaignError
from cloud.campaigns.flower.creating import flower_campaign, history, rounds_done
from cloud.campaigns.journal import forget_secret
from cloud.campaigns.launch import Launch
from cloud.campaigns.models import CampaignRow, CheckpointRow, RoundRow
from cloud.campaigns.planning import Plan, make_plan
from cloud.campaigns.privacy import spent_by_device
from cloud.campaigns.rounds import RoundState, give_up
from cloud.campaigns.trace import trace_of
from cloud.campaigns.tries import personal_accuracy_of, read_round, write_round
from cloud.campaigns.user_privacy import spent_by_devices
from cloud.db import SessionFactory, reading
from cloud.devices.service import active_devices, get_active_device
from cloud.jobs.service import cancel_job, create_job, get_job, pause_job, resume_job
from cloud.monitoring.service import heard_since
from cloud.registry.service import get_version
from cloud.work.service import expire_campaign, newest
from shared.api.campaigns import (
    Campaign,
    CampaignClone,
    CampaignCreate,
    FlowerCampaignCreate,
    FlowerRun,
    PrivacyBudget,
    Round,
    SecureAggregation,
    SelectionRules,
    UserPrivacy,
)
from shared.api.models import ModelVersion
from shared.api.traces import Trace
from shared.lifecycles import JobState
from shared.privacy import PrivacySpec, UserPrivacySpec
from shared.tasks.registry import load_task
from shared.tasks.task import Task

JOB_KIND = "campaign"
CANCELLED = "Cancelled"
_OPEN = (RoundState.WAITING, RoundState.AGGREGATING)


def plan_campaign(sessions: SessionFactory, asked: CampaignCreate) -> Plan:
    """The plan of a campaign that can start now. Holds up nobody: it looks first, and computes in no transaction.

    Raises:
        UnknownModelVersionError: The starting model is not registered.
        UnknownDeviceError: One of the named devices is not enrolled.
        FleetlearnError: As `planning.make_plan`.
    """
    task = load_task(asked.task)
    with reading(sessions) as session:
        _check_start(session, asked, task)
        able = _able(session, asked, task) if asked.user_privacy else 0
    return make_plan(asked, population=max(able, asked.quorum))


def create_campaign(session: Session, plan: Plan, launch: Launch) -> Campaign:
    """The campaign and its queued job, together. Looks again at what may have changed since it was planned.

    Raises:
        UnknownModelVersionError: The starting model is not registered.
        UnknownDeviceError: One of the named devices is not enrolled.
        InvalidCampaignError: The model is of another task, or the devices can never be a quorum.
    """
    devices = _check_start(session, plan.asked, plan.task)
    return _queued(session, _new_row(plan, launch, devices), launch, start_at=plan.asked.start_at)


def _check_start(session: Session, asked: CampaignCreate, task: Task) -> list[str]:
    """The named devices, sorted, once model and devices are found to be there."""
    _check_model(task, get_version(session, asked.model_version_id))
    return checked_devices(session, asked.devices, quorum=asked.quorum)


def _able(session: Session, asked: CampaignCreate, task: Task) -> int:
    """Devices with access that have the task in its version."""
    return sum(device.tasks.get(task.name) == task.version for device in active_devices(session, only=asked.devices))


def _new_row(plan: Plan, launch: Launch, devices: list[str]) -> CampaignRow:
    asked = plan.asked
    return CampaignRow(
        **launch.columns(),
        task=plan.task.name,
        task_version=plan.task.version,
        strategy=plan.settings.name,
        strategy_settings=plan.settings.model_dump(exclude={"name"}),
        compression=plan.compression,
        rounds=asked.rounds,
        quorum=asked.quorum,
        round_timeout_s=asked.round_timeout_s,
        seed=asked.seed,
        devices=devices,
        selection=asked.selection.model_dump(mode="json"),
        start_model_version_id=asked.model_version_id,
        privacy_budget=asked.privacy.model_dump() if asked.privacy else None,
        secure=asked.secure.model_dump() if asked.secure else None,
        privacy=plan.privacy.model_dump() if plan.privacy else None,
        user_privacy_asked=asked.user_privacy.model_dump(mode="json") if asked.user_privacy else None,
        user_privacy=plan.user_privacy.model_dump(mode="json") if plan.user_privacy else None,
    )


def create_flower_campaign(session: Session, asked: FlowerCampaignCreate, launch: Launch, *, apps: Path) -> Campaign:
    """The campaign of a Flower app that is installed in `apps`, and its queued job.

    Raises:
        InvalidCampaignError: The app is not installed here, has no such setting, or the parts contradict each other.
        UnknownDeviceError: One of the named devices is not enrolled.
    """
    return _queued(session, flower_campaign(session, asked, launch, apps=apps), launch, start_at=asked.start_at)


def _queued(session: Session, row: CampaignRow, launch: Launch, *, start_at: float | None) -> Campaign:
    queue(session, row, launch, kind=JOB_KIND, start_at=start_at)
    return _view(session, row, with_history=True)


def queue(session: Session, row: CampaignRow, launch: Launch, *, kind: str, start_at: float | None = None) -> None:
    """Keeps the campaign or analysis, and its job of this kind, which waits until `start_at`."""
    session.add(row)
    create_job(
        session,
        kind=kind,
        spec={"campaign_id": row.campaign_id},
        job_id=row.job_id,
        now=launch.now,
        principal=launch.principal,
        not_before=start_at,
    )
    session.flush()


def asked_for(session: Session, campaign_id: str, changes: CampaignClone) -> CampaignCreate:
    """What a campaign was asked for, with changes: the request of its clone.

    Raises UnknownCampaignError, or InvalidCampaignError for one that runs a Flower app.
    """
    row = _row(session, campaign_id)
    if row.flower is not None:
        raise InvalidCampaignError(
            "Expected a campaign of a task, got one that runs a Flower app",
            hint="Start the app again: `fleetlearn campaigns start --flower-app PATH`.",
        )
    original = CampaignCreate(
        task=row.task,
        model_version_id=row.start_model_version_id,
        rounds=row.rounds,
        strategy=row.strategy,
        strategy_settings=row.strategy_settings,
        compression=row.compression,
        privacy=PrivacyBudget.model_validate(row.privacy_budget) if row.privacy_budget else None,
        user_privacy=UserPrivacy.model_validate(row.user_privacy_asked) if row.user_privacy_asked else None,
        secure=SecureAggregation.model_validate(row.secure) if row.secure else None,
        devices=row.devices,
        selection=SelectionRules.model_validate(row.selection),
        quorum=row.quorum,
        round_timeout_s=row.round_timeout_s,
        seed=row.seed,
    )
    return original.model_copy(update=changes.model_dump(exclude_none=True))


def get_campaign(session: Session, campaign_id: str) -> Campaign:
    """The campaign with its history. Raises UnknownCampaignError."""
    return _view(session, _row(session, campaign_id), with_history=True)


def list_campaigns(session: Session, *, limit: int) -> list[Campaign]:
    """The newest campaigns, newest first, without their histories."""
    newest = select(CampaignRow).where(col(CampaignRow.query).is_(None))
    newest = newest.order_by(col(CampaignRow.created_at).desc(), col(CampaignRow.campaign_id).desc())
    return [_view(session, row, with_history=False) for row in session.exec(newest.limit(limit))]


def trace(session: Session, *, limit: int, heartbeat_s: float) -> Trace:
    """What devices did lately, and when they were there.

    Args:
        session: Of the caller's transaction.
        limit: Most pieces of work, the newest; and as many reports.
        heartbeat_s: How often devices are heard when they are well; silence of three of these ends a stay.
    """
    works = newest(session, limit=limit)
    heard = heard_since(session, min((work.created_at for work in works), default=0.0), limit=limit)
    return trace_of(works, heard, gap_s=3 * heartbeat_s)


def cancel_campaign(session: Session, campaign_id: str, *, now: float) -> Campaign:
    """The campaign, cancelled: its job stops, and no device gets its work any more.

    Raises UnknownCampaignError, or JobFinishedError when there is nothing left to cancel.
    """
    row = _row(session, campaign_id)
    cancel_row(session, row, now=now)
    return _view(session, row, with_history=True)


def cancel_row(session: Session, row: CampaignRow, *, now: float) -> None:
    """Ends the row's job, its open try and its pending work. Raises JobFinishedError."""
    cancel_job(session, row.job_id, now=now)
    expire_campaign(session, row.campaign_id, now=now)
    forget_secret(session, row.campaign_id)
    for attempt in tries_of(session, row.campaign_id):
        if RoundState(attempt.state) in _OPEN:
            write_round(attempt, give_up(read_round(attempt)), news={}, work={}, reason=CANCELLED, now=now)
            session.add(attempt)
    session.flush()


def pause_campaign(session: Session, campaign_id: str) -> Campaign:
    """The campaign, paused. An open round stays open: answers that come meanwhile count when it is resumed.

    Raises UnknownCampaignError, or JobFinishedError when it is over.
    """
    row = _row(session, campaign_id)
    pause_job(session, row.job_id)
    session.flush()
    return _view(session, row, with_history=True)


def resume_campaign(session: Session, campaign_id: str) -> Campaign:
    """The campaign, queued: it goes on in the same round. Raises UnknownCampaignError or JobNotPausedError."""
    row = _row(session, campaign_id)
    resume_job(session, row.job_id)
    session.flush()
    return _view(session, row, with_history=True)


def _check_model(task: Task, version: ModelVersion) -> None:
    if (version.task, version.task_version) != (task.name, task.version):
        raise InvalidCampaignError(
            f"Expected a model of task {task.name} version {task.version}, "
            f"got one of {version.task} version {version.task_version}"
        )


def checked_devices(session: Session, named: Iterable[str], *, quorum: int) -> list[str]:
    """The devices, sorted. Raises UnknownDeviceError, or InvalidCampaignError where they can never be a quorum."""
    devices = sorted(set(named))
    for device_id in devices:
        get_active_device(session, device_id)
    if devices and len(devices) < quorum:
        raise InvalidCampaignError(
            f"Expected a quorum of at most {len(devices)}, the number of devices named, got {quorum}"
        )
    return devices


def _row(session: Session, campaign_id: str) -> CampaignRow:
    row = session.get(CampaignRow, campaign_id)
    if row is None or row.query is not None:
        raise UnknownCampaignError(
            f"Expected a campaign, got the unknown id {campaign_id[:80]!r}",
            hint="`fleetlearn campaigns list` shows them.",
        )
    return row


def tries_of(session: Session, campaign_id: str) -> Sequence[RoundRow]:
    """All tries at all rounds, in order."""
    query = select(RoundRow).where(RoundRow.campaign_id == campaign_id)
    return session.exec(query.order_by(col(RoundRow.round), col(RoundRow.attempt))).all()


def _view(session: Session, row: CampaignRow, *, with_history: bool) -> Campaign:
    job = get_job(session, row.job_id)
    checkpoints = session.exec(
        select(CheckpointRow).where(CheckpointRow.campaign_id == row.campaign_id).order_by(col(CheckpointRow.round))
    ).all()
    privacy = PrivacySpec.model_validate(row.privacy) if row.privacy else None
    user = UserPrivacySpec.model_validate(row.user_privacy) if row.user_privacy else None
    rounds = _rounds_done(session, row, checkpoints)
    tries = tries_of(session, row.campaign_id) if with_history else []
    flower = FlowerRun.model_validate({**row.flower, **(job.result or {})}) if row.flower else None
    if flower is not None:
        shown = history(session, row.campaign_id) if with_history else []
    else:
        shown = [view_try(attempt) for attempt in tries]
    return Campaign(
        campaign_id=row.campaign_id,
        task=row.task,
        state=JobState(job.state),
        error=job.error,
        strategy=row.strategy,
        strategy_settings=row.strategy_settings,
        compression=row.compression,
        rounds=row.rounds,
        rounds_done=rounds,
        selection=SelectionRules.model_validate(row.selection),
        secure=SecureAggregation.model_validate(row.secure) if row.secure else None,
        privacy=privacy,
        privacy_spent=spent_by_device(privacy, tries),
        flower=flower,
        user_privacy=user,
        user_privacy_spent=spent_by_devices(user, rounds=rounds),
        start_model_version_id=row.start_model_version_id,
        start_accuracy=checkpoints[0].accuracy if checkpoints else None,
        result_model_version_id=row.result_model_version_id,
        created_at=row.created_at,
        start_at=job.not_before,
        finished_at=job.finished_at,
        history=shown,
    )


def _rounds_done(session: Session, row: CampaignRow, checkpoints: Sequence[CheckpointRow]) -> int:
    if row.flower:
        return rounds_done(session, row.campaign_id)
    return checkpoints[-1].round if checkpoints else 0


def view_try(row: RoundRow) -> Round:
    """One try as operators see it: the devices asked, and why, if it was abandoned."""
    return Round(
        round=row.round,
        attempt=row.attempt,
        state=row.state,
        reason=row.reason,
        started_at=row.started_at,
        finished_at=row.finished_at,
        accuracy=row.accuracy,
        loss=row.loss,
        personal_accuracy=personal_accuracy_of(row),
        bytes_down=row.bytes_down,
        bytes_up=row.bytes_up,
        bytes_down_raw=len(row.fetched) * row.model_bytes,
        bytes_up_raw=sum(outcome.get("update_bytes_raw", 0) for outcome in row.outcomes),
        devices=row.outcomes,
        excluded=row.excluded,
        chosen=row.chosen,
    )
