"""One try at a round, between its row and its value; and one device's share of it, as operators see it. No database."""

import hashlib
from collections.abc import Iterable, Mapping

from cloud.campaigns.models import RoundRow
from cloud.campaigns.rounds import Answer, Round, RoundState
from cloud.campaigns.selection import Selection
from cloud.campaigns.updates import Update, Verdict
from cloud.work.service import WorkOutcome
from shared.api.campaigns import DeviceOutcome
from shared.ids import DeviceId
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import SecureStep, Work

PERSONAL = "personal-accuracy"
"""The metric of a device's own model, on what the device holds out."""
_CLOSED = (RoundState.DONE, RoundState.ABANDONED)


def work_id_of(campaign_id: str, *, number: int, attempt: int, device_id: DeviceId) -> str:
    """The id of a device's work in a try: the same each time it is asked for, so that asking twice is asking once."""
    return hashlib.sha256(f"{campaign_id}\n{number}\n{attempt}\n{device_id}".encode()).hexdigest()[:32]


def step_work_id(work_id: str, step: SecureStep) -> str:
    """The id of a later step's work, of secure aggregation, from that of the device's training."""
    return hashlib.sha256(f"{work_id}\n{step.value}".encode()).hexdigest()[:32]


def new_try(
    campaign_id: str,
    asked: Round,
    works: Mapping[DeviceId, Work],
    *,
    carried: Mapping[DeviceId, str],
    selection: Selection,
    now: float,
) -> RoundRow:
    """The row of a try whose devices are asked, or still train for an earlier round (`carried`: their work's ids)."""
    row = _row(campaign_id, asked, selection=selection, now=now)
    new: dict[str, str] = {device: work.work_id for device, work in works.items()}
    row.work_ids = new | {str(device): work_id for device, work_id in carried.items()}
    row.model_bytes = max((work.model.size_bytes for work in works.values()), default=0)
    row.outcomes = [_dump(DeviceOutcome(device_id=device, status=Answer.WAITING)) for device in asked.answers]
    return row


def excluded_try(campaign_id: str, given_up: Round, *, selection: Selection, reason: str, now: float) -> RoundRow:
    """The row of a try that asked nobody."""
    row = _row(campaign_id, given_up, selection=selection, now=now)
    row.reason, row.finished_at = reason, now
    return row


def read_round(row: RoundRow) -> Round:
    """The value of a row."""
    return Round(
        number=row.round,
        attempt=row.attempt,
        quorum=row.quorum,
        state=RoundState(row.state),
        deadline_at=row.deadline_at,
        answers={DeviceId(outcome["device_id"]): Answer(outcome["status"]) for outcome in row.outcomes},
    )


def write_round(
    row: RoundRow,
    value: Round,
    *,
    news: Mapping[DeviceId, DeviceOutcome],
    work: Mapping[str, WorkOutcome],
    reason: str,
    now: float,
    steps: Iterable[WorkOutcome] = (),
) -> None:
    """Takes the value over into the row: the state, each device's outcome, and the bytes that moved.

    Args:
        row: Changed in place.
        value: The round, as it is now.
        news: Of devices that are newly heard.
        work: Of the try; nothing leaves what was known of it.
        reason: Why it was abandoned.
        now: Seconds since the epoch.
        steps: Later work of the try, of secure aggregation: its bytes count, and nothing else of it.
    """
    row.state, row.deadline_at, row.reason = value.state.value, value.deadline_at, reason
    row.outcomes = [_dump(outcome) for outcome in _merged(row, value, news)]
    row.bytes_up = sum(outcome["update_bytes"] for outcome in row.outcomes)
    if work:
        row.fetched = sorted(one.device_id for one in work.values() if one.fetched_at is not None)
        own = [one for one in work.values() if one.fetched_at is not None and one.round == row.round]
        row.bytes_down = sum(_bytes_down(row, one) for one in own)
        later = [one for one in steps if one.fetched_at is not None]
        row.bytes_down += sum(one.model_bytes for one in later)
        row.bytes_up += sum(one.result.update.size_bytes for one in later if one.result and one.result.update)
    if value.state in _CLOSED and row.finished_at is None:
        row.finished_at = now


def write_verdicts(row: RoundRow, verdicts: Mapping[str, Verdict]) -> None:
    """Notes what a robust rule thinks of each device's update."""
    if verdicts:
        row.outcomes = [_dump(_judged(DeviceOutcome.model_validate(one), verdicts)) for one in row.outcomes]


def outcome_of(
    device_id: DeviceId, answer: Answer, result: WorkResult, *, reason: str = "", update: Update | None = None
) -> DeviceOutcome:
    """What a device did, from its result and the update that was read of it; `reason` says why that was rejected."""
    return DeviceOutcome(
        device_id=device_id,
        status=answer.value,
        reason=reason or result.reason,
        examples=_examples(result),
        update_bytes=result.update.size_bytes if result.update else 0,
        update_bytes_raw=update.bytes_raw if update else 0,
        compression=update.compression if update else "",
        model_bytes=result.model_bytes,
        duration_s=result.duration_s,
        metrics=result.metrics,
        privacy=result.privacy,
    )


def rejected_of(news: Mapping[DeviceId, DeviceOutcome], work: Iterable[WorkOutcome]) -> list[DeviceId]:
    """Devices whose results said that they were done, and whose updates could not be used."""
    said_done = {one.device_id for one in work if one.result and one.result.status is WorkStatus.DONE}
    return sorted(device for device, outcome in news.items() if outcome.status == Answer.FAILED and device in said_done)


def late_outcome(work: WorkOutcome, *, reason: str) -> DeviceOutcome:
    """What a device did after its round."""
    assert work.result is not None
    return outcome_of(work.device_id, Answer.LATE, work.result, reason=reason)


def personal_accuracy_of(row: RoundRow) -> float | None:
    """Mean over the devices whose updates count of how good their own models are; None where none says."""
    said = [outcome["metrics"].get(PERSONAL) for outcome in row.outcomes if outcome["status"] == Answer.DONE]
    told = [accuracy for accuracy in said if accuracy is not None]
    return sum(told) / len(told) if told else None


def unanswered_of(newest: RoundRow) -> dict[DeviceId, str]:
    """Devices whose answer did not come while the try was open, with their work's ids."""
    missed = (Answer.SILENT, Answer.LATE)
    names = [outcome["device_id"] for outcome in newest.outcomes if outcome["status"] in missed]
    return {DeviceId(name): newest.work_ids[name] for name in names}


def _row(campaign_id: str, value: Round, *, selection: Selection, now: float) -> RoundRow:
    return RoundRow(
        campaign_id=campaign_id,
        round=value.number,
        attempt=value.attempt,
        state=value.state.value,
        quorum=value.quorum,
        started_at=now,
        deadline_at=value.deadline_at,
        # Whoever still trains for an earlier round was not asked again, and takes part all the same.
        excluded={str(device): why for device, why in selection.excluded.items() if device not in value.answers},
        chosen={str(device): reason for device, reason in selection.why_chosen.items()},
    )


def _merged(row: RoundRow, value: Round, news: Mapping[DeviceId, DeviceOutcome]) -> list[DeviceOutcome]:
    """Outcomes by device; a first answer stands, so news of a device that has answered before are ignored."""
    before = {outcome["device_id"]: DeviceOutcome.model_validate(outcome) for outcome in row.outcomes}
    merged = []
    for device, answer in value.answers.items():
        known = before[device]
        if known.status != answer and device in news:
            known = news[device]
        merged.append(known.model_copy(update={"status": answer.value}))
    return merged


def _judged(outcome: DeviceOutcome, verdicts: Mapping[str, Verdict]) -> DeviceOutcome:
    verdict = verdicts.get(outcome.device_id)
    if verdict is None:
        return outcome
    return outcome.model_copy(update={"anomaly_score": verdict.score, "is_used": verdict.is_used})


def _bytes_down(row: RoundRow, work: WorkOutcome) -> int:
    """What came down to a device: what it says, and never more than the model; all of it while it has said nothing."""
    said = work.result.model_bytes if work.result else None
    return row.model_bytes if said is None else min(said, row.model_bytes)


def _examples(result: WorkResult) -> int:
    weight = result.metrics.get("num-examples", 0.0)
    return int(weight) if 0 <= weight <= 1e12 else 0


def _dump(outcome: DeviceOutcome) -> dict[str, object]:
    return outcome.model_dump(mode="json")
