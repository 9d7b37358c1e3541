"""Work for devices: made by a campaign, fetched by its device, finished by a result. Each step may be repeated."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Select
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, func, or_, select

from cloud.work.errors import UnknownWorkError, WorkExistsError
from cloud.work.models import WorkItem, WorkState
from shared.ids import DeviceId, Digest
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work, WorkKind

PENDING_MAX = 100
"""Most work that a device gets in one answer, oldest first; the rest comes with the next."""
_BATCH = 500
"""Ids in one statement."""
_STATE_BY_STATUS = {
    WorkStatus.DONE: WorkState.DONE,
    WorkStatus.REFUSED: WorkState.REFUSED,
    WorkStatus.FAILED: WorkState.FAILED,
}


@dataclass(frozen=True)
class WorkOutcome:
    """One piece of work as a campaign sees it."""

    work_id: str
    device_id: DeviceId
    round: int
    """The round whose model it trains."""
    state: WorkState
    result: WorkResult | None
    """None until the device answered; kept for expired work too, if it still answers."""
    created_at: float
    fetched_at: float | None
    finished_at: float | None
    model_bytes: int = 0
    """Size of the model that was to be fetched."""


@dataclass(frozen=True)
class Taken:
    """How often a device took work of a campaign that may have cost it privacy."""

    device_id: DeviceId
    campaign_id: str
    dataset_id: str | None
    """Of the account that it was charged to, as the device says; None where it did not say."""
    times: int
    newest_at: float


def create_work(session: Session, work: Work, *, device_id: DeviceId, now: float) -> None:
    """Stores an instruction; storing the same one again does no harm. Raises WorkExistsError for another one."""
    instruction = work.model_dump(mode="json")
    found = session.get(WorkItem, work.work_id)
    if found is None:
        session.add(_row(work, instruction, device_id=device_id, now=now))
    elif (found.device_id, found.instruction) != (device_id, instruction):
        raise WorkExistsError(f"Expected a new work id, got {work.work_id}, which is other work's")


def pending_for(session: Session, device_id: DeviceId, *, now: float) -> list[Work]:
    """What waits for this device, oldest first; marks it as fetched."""
    query = (
        select(WorkItem)
        .where(WorkItem.device_id == device_id, WorkItem.state == WorkState.PENDING)
        .order_by(col(WorkItem.created_at), col(WorkItem.work_id))
        .limit(PENDING_MAX)
    )
    rows = session.exec(query).all()
    for row in rows:
        row.fetched_at = row.fetched_at or now
        session.add(row)
    return [Work.parse_document(row.instruction) for row in rows]


def busy_with(session: Session, *, except_for: str) -> dict[DeviceId, str]:
    """Devices that another campaign waits for, with that campaign's id."""
    query = select(WorkItem.device_id, WorkItem.campaign_id).where(
        WorkItem.state == WorkState.PENDING, WorkItem.campaign_id != except_for
    )
    return {DeviceId(device_id): campaign_id for device_id, campaign_id in session.exec(query)}


def busy_devices(session: Session) -> frozenset[DeviceId]:
    """Devices that some campaign waits for."""
    query = select(WorkItem.device_id).where(WorkItem.state == WorkState.PENDING).distinct()
    return frozenset(DeviceId(device_id) for device_id in session.exec(query))


def record_result(session: Session, device_id: DeviceId, result: WorkResult, *, now: float) -> None:
    """Stores what a device says of its own work; the first result counts. Raises UnknownWorkError."""
    row = session.get(WorkItem, result.work_id, with_for_update=True)
    if row is None or row.device_id != device_id:
        raise UnknownWorkError(f"Expected work of device {device_id}, got {result.work_id!r}")
    if row.result is not None:
        return
    row.result = result.model_dump(mode="json")
    row.finished_at = now
    if row.state == WorkState.PENDING:
        row.state = _STATE_BY_STATUS[result.status]
    session.add(row)


def results_of(session: Session, *, campaign_id: str, round: int) -> list[WorkOutcome]:  # the domain's word
    """All work of a round, in the order it was made."""
    query = (
        select(WorkItem)
        .where(WorkItem.campaign_id == campaign_id, WorkItem.round == round)
        .order_by(col(WorkItem.created_at), col(WorkItem.work_id))
    )
    return [_outcome(row) for row in session.exec(query)]


def outcomes_of(session: Session, work_ids: Iterable[str]) -> list[WorkOutcome]:
    """These pieces of work, of whatever round; those that do not exist are left out."""
    return [
        _outcome(row)
        for some in _batches(work_ids)
        for row in session.exec(select(WorkItem).where(col(WorkItem.work_id).in_(some)))
    ]


def taken(session: Session, *, device_ids: Iterable[str]) -> list[Taken]:
    """What these devices fetched and may have charged their ledgers for, by campaign and data set.

    Work that a device refused counts where the refusal says that it had paid by then. Reads the database, not what the
    session holds.
    """
    return [
        Taken(DeviceId(device), campaign, dataset_id, times, newest_at)
        for some in _batches(device_ids)
        for device, campaign, dataset_id, times, newest_at in session.connection().execute(_taken(some))
    ]


def refusals_of(session: Session, campaign_id: str) -> dict[str, str]:
    """Devices that refused work of this campaign, with their reasons."""
    refused = (WorkItem.campaign_id == campaign_id, WorkItem.state == WorkState.REFUSED)
    outcomes = [_outcome(row) for row in session.exec(select(WorkItem).where(*refused))]
    return {one.device_id: one.result.reason for one in outcomes if one.result is not None}


def expired_with_result(session: Session, work_id: str, *, device_id: DeviceId) -> WorkItem | None:
    """This work of the device's, where its result came after it was taken back."""
    row = session.get(WorkItem, work_id)
    is_late = row is not None and row.device_id == device_id and row.state == WorkState.EXPIRED
    return row if is_late and row is not None and row.result is not None else None


def newest(session: Session, *, limit: int) -> list[WorkOutcome]:
    """The work that was made last, of all campaigns, newest first; answers to questions are not among it."""
    query = select(WorkItem).order_by(col(WorkItem.created_at).desc(), col(WorkItem.work_id)).limit(limit)
    return [_outcome(row) for row in session.exec(query) if row.instruction.get("kind") != WorkKind.ANALYZE]


def ended_ids(session: Session, *, campaign_id: str, since_round: int) -> set[str]:
    """The work of these rounds that waits no more: a cheap look, to see what to read."""
    query = select(WorkItem.work_id).where(
        WorkItem.campaign_id == campaign_id, WorkItem.round >= since_round, WorkItem.state != WorkState.PENDING
    )
    return set(session.exec(query))


def expire(session: Session, *, work_ids: Iterable[str], now: float) -> None:
    """Takes back what is still pending; its device no longer gets it. Finished work stays as it is."""
    for row in _rows(session, work_ids):
        if row.state == WorkState.PENDING:
            row.state = WorkState.EXPIRED
            row.finished_at = now
            session.add(row)


def expire_round(session: Session, *, campaign_id: str, round: int, now: float) -> None:  # the domain's word
    """Takes back what is still pending of a round, later steps of secure aggregation included."""
    pending = (WorkItem.state == WorkState.PENDING, WorkItem.campaign_id == campaign_id, WorkItem.round == round)
    expire(session, work_ids=session.exec(select(WorkItem.work_id).where(*pending)).all(), now=now)


def expire_campaign(session: Session, campaign_id: str, *, now: float) -> None:
    """Takes back all of a campaign's work that is still pending."""
    query = select(WorkItem.work_id).where(WorkItem.campaign_id == campaign_id, WorkItem.state == WorkState.PENDING)
    expire(session, work_ids=session.exec(query).all(), now=now)


def may_read(session: Session, device_id: DeviceId, digest: Digest) -> bool:
    """Whether an object is the model of some work of this device."""
    query = select(WorkItem.work_id).where(WorkItem.device_id == device_id, WorkItem.model_digest == digest).limit(1)
    return session.exec(query).first() is not None


def _taken(device_ids: tuple[str, ...]) -> Select[str, str, str | None, int, float]:
    kind = col(WorkItem.instruction)["kind"].as_string()
    dataset = col(WorkItem.result)["privacy", "dataset_id"].as_string()
    # A query within: PostgreSQL takes an expression with a parameter for another one where it groups by it.
    each = (
        select(WorkItem.device_id, WorkItem.campaign_id, dataset.label("dataset_id"), WorkItem.created_at)
        .where(col(WorkItem.device_id).in_(device_ids), col(WorkItem.fetched_at).is_not(None))
        .where(kind.in_([WorkKind.TRAIN, WorkKind.ANALYZE]))
        .where(or_(col(WorkItem.state) != WorkState.REFUSED, dataset.is_not(None)))
        .subquery()
        .c
    )
    account = (each.device_id, each.campaign_id, each.dataset_id)
    return select_columns(*account, func.count(), func.max(each.created_at)).group_by(*account)


def _rows(session: Session, work_ids: Iterable[str]) -> Iterator[WorkItem]:
    for some in _batches(work_ids):
        yield from session.exec(select(WorkItem).where(col(WorkItem.work_id).in_(some)).with_for_update()).all()


def _batches(work_ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """A few at a time: databases bound the values of one statement."""
    waiting = iter(work_ids)
    while some := tuple(islice(waiting, _BATCH)):
        yield some


def _row(work: Work, instruction: dict[str, object], *, device_id: DeviceId, now: float) -> WorkItem:
    return WorkItem(
        work_id=work.work_id,
        device_id=device_id,
        campaign_id=work.campaign_id,
        round=work.round,
        model_digest=work.model.digest,
        instruction=instruction,
        created_at=now,
    )


def _outcome(row: WorkItem) -> WorkOutcome:
    return WorkOutcome(
        work_id=row.work_id,
        device_id=DeviceId(row.device_id),
        round=row.round,
        state=WorkState(row.state),
        result=None if row.result is None else WorkResult.parse_document(row.result),
        created_at=row.created_at,
        fetched_at=row.fetched_at,
        finished_at=row.finished_at,
        model_bytes=int(row.instruction.get("model", {}).get("size_bytes", 0)),
    )
