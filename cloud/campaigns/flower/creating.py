"""Flower apps as campaigns: as operators ask for them and see them. Imports nothing of Flower."""

from pathlib import Path

from sqlmodel import Session, col, func, select

from cloud.campaigns.errors import InvalidCampaignError
from cloud.campaigns.flower.models import FlowerEvent
from cloud.campaigns.launch import Launch
from cloud.campaigns.models import CampaignRow
from cloud.campaigns.rounds import Answer
from cloud.campaigns.tries import late_outcome, outcome_of
from cloud.devices.service import get_active_device
from cloud.work.models import WorkState
from cloud.work.service import WorkOutcome, outcomes_of
from shared.api.campaigns import DeviceOutcome, FlowerCampaignCreate, FlowerRun, Round
from shared.flower_apps import FlowerApp, FlowerAppNotInstalledError, InvalidFlowerAppError, find_app, run_config

STRATEGY = "flower-app"
"""In place of a strategy's name: the app brings its own."""
_ROUNDS_KEY = "num-server-rounds"
"""By convention of Flower's apps."""
_NO_SAMPLING = ("cohort", "enough", "rate")
_ANSWERS = {
    WorkState.PENDING: Answer.WAITING,
    WorkState.DONE: Answer.DONE,
    WorkState.REFUSED: Answer.REFUSED,
    WorkState.FAILED: Answer.FAILED,
    WorkState.EXPIRED: Answer.SILENT,
}


def flower_campaign(session: Session, asked: FlowerCampaignCreate, launch: Launch, *, apps: Path) -> CampaignRow:
    """The row of a campaign that runs a Flower app of `apps`, the folder of installed ones.

    Raises:
        InvalidCampaignError: The app is not installed here, has no such setting, or the parts contradict each other.
        UnknownDeviceError: One of the named devices is not enrolled.
    """
    app, config = _checked_app(asked.flower, apps)
    given = asked.selection.model_dump(exclude_defaults=True)
    if extra := next((name for name in _NO_SAMPLING if name in given), None):
        raise InvalidCampaignError(f"Expected no {extra} for a Flower app, whose strategy draws the devices itself")
    for device_id in asked.devices:
        get_active_device(session, device_id)
    rounds = config.get(_ROUNDS_KEY)
    return CampaignRow(
        **launch.columns(),
        task=app.task,
        task_version=app.content,
        strategy=STRATEGY,
        rounds=rounds if isinstance(rounds, int) and not isinstance(rounds, bool) and rounds > 0 else 0,
        quorum=1,
        round_timeout_s=asked.round_timeout_s,
        seed=asked.seed,
        devices=sorted(set(asked.devices)),
        selection=asked.selection.model_dump(mode="json"),
        start_model_version_id="",
        flower=FlowerRun(app=app.name, version=app.version, digest=app.digest, config=config).model_dump(),
    )


def _checked_app(asked: FlowerRun, apps: Path) -> tuple[FlowerApp, dict[str, bool | int | float | str]]:
    try:
        app = find_app(apps, name=asked.app, version=asked.version, digest=asked.digest)
        return app, run_config(app, asked.config)
    except FlowerAppNotInstalledError as error:
        raise InvalidCampaignError(
            f"{error.message} (on the coordinator)", hint=f"Copy the app's folder into {apps} there."
        ) from error
    except InvalidFlowerAppError as error:
        raise InvalidCampaignError(error.message, hint=error.hint) from error


def rounds_done(session: Session, campaign_id: str) -> int:
    """The newest of the app's own rounds that was trained: it took the answers."""
    newest = select(func.max(FlowerEvent.round)).where(
        FlowerEvent.campaign_id == campaign_id, FlowerEvent.kind == "received"
    )
    return session.exec(newest).one() or 0


def history(session: Session, campaign_id: str) -> list[Round]:
    """What the app sent, and what each device made of it; one round is what it sent together."""
    sent = select(FlowerEvent).where(FlowerEvent.campaign_id == campaign_id, FlowerEvent.kind == "sent")
    events = session.exec(sent.order_by(col(FlowerEvent.number))).all()
    return [_round(session, number, event) for number, event in enumerate(events, start=1)]


def _round(session: Session, number: int, event: FlowerEvent) -> Round:
    found = {one.work_id: one for one in outcomes_of(session, event.content["work_ids"])}
    works = [found[work_id] for work_id in event.content["work_ids"] if work_id in found]
    devices = sorted((_outcome(one) for one in works), key=lambda one: one.device_id)
    is_over = all(one.state is not WorkState.PENDING for one in works)
    types = sorted({message["message_type"] for message in event.content["messages"]})
    return Round(
        round=number,
        message_type=", ".join(types) + (f" of round {event.round}" if event.round else ""),
        state="done" if is_over else "waiting",
        started_at=event.at,
        finished_at=max((one.finished_at or event.at for one in works), default=event.at) if is_over else None,
        bytes_down=sum(one.model_bytes for one in works if one.fetched_at is not None),
        bytes_up=sum(one.update_bytes for one in devices),
        devices=devices,
    )


def _outcome(one: WorkOutcome) -> DeviceOutcome:
    if one.result is None:
        return DeviceOutcome(device_id=one.device_id, status=_ANSWERS[one.state].value)
    if one.state is WorkState.EXPIRED:
        return late_outcome(one, reason="Answered after the round was over")
    return outcome_of(one.device_id, _ANSWERS[one.state], one.result)
