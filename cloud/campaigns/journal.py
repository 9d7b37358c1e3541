"""The durable steps of one campaign: each method is one transaction, and a crash falls between two of them.

Whoever runs a campaign again finds here what was decided: the newest checkpoint, and the open try at a round with its
work. Nothing here decides anything; that is `rounds`, `selection` and `updates`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from cloud.campaigns.errors import DevicesBusyError
from cloud.campaigns.late import note_late, tries_of, work_of
from cloud.campaigns.models import CampaignRow, CampaignSecretRow, CheckpointRow, RoundRow
from cloud.campaigns.past import Past
from cloud.campaigns.rounds import Round, RoundState
from cloud.campaigns.selection import Rival, Selection
from cloud.campaigns.tries import (
    excluded_try,
    new_try,
    rejected_of,
    step_work_id,
    unanswered_of,
    write_round,
    write_verdicts,
)
from cloud.campaigns.updates import Verdict
from cloud.campaigns.user_privacy import next_secret
from cloud.db import SessionFactory, reading
from cloud.devices import service as device_service
from cloud.jobs.context import JobCancelledError
from cloud.jobs.models import JobRecord
from cloud.registry.service import NewVersion, get_version, register
from cloud.work import service as work_service
from cloud.work.models import WorkState
from cloud.work.service import WorkOutcome
from shared.api.analytics import Findings
from shared.api.campaigns import DeviceOutcome
from shared.api.devices import Device
from shared.api.models import ModelVersion
from shared.ids import DeviceId
from shared.lifecycles import JobState
from shared.messages.base import ObjectRef
from shared.messages.work import SecureStep, Work
from shared.privacy import PrivacySpec

LATE_ROUNDS = 10
"""Each round looks for late answers to so many before it; the campaign's end looks at all."""
_OPEN = (RoundState.WAITING.value, RoundState.AGGREGATING.value)


@dataclass(frozen=True)
class Step:
    """A checkpoint to be: the campaign after a round."""

    round: int
    model: ObjectRef
    memory: ObjectRef | None
    accuracy: float
    loss: float


class Journal:
    """One campaign's durable state.

    Args:
        sessions: Where it is kept.
        campaign_id: Which campaign.
        now: Seconds since the epoch.
        staleness_max: For how many more rounds work counts that its own did not wait for; 0 in synchronous rounds.
    """

    def __init__(
        self, sessions: SessionFactory, campaign_id: str, *, now: Callable[[], float], staleness_max: int = 0
    ) -> None:
        self._staleness_max = staleness_max
        self._sessions = sessions
        self._campaign_id = campaign_id
        self._now = now
        self._settled: list[RoundRow] = []
        """Tries of rounds that are over: read once, since a long campaign has thousands."""
        self._past = Past()
        """Of the same."""

    def campaign(self) -> CampaignRow:
        with self._sessions() as session, session.begin():
            return _campaign(session, self._campaign_id)

    def start_version(self) -> ModelVersion:
        with self._sessions() as session, session.begin():
            return get_version(session, _campaign(session, self._campaign_id).start_model_version_id)

    def begin(self, step: Step, *, privacy: PrivacySpec | None, population: int, secret: bytes | None = None) -> None:
        """Stores what is planned once, and checkpoint 0, the starting model."""
        with self._sessions() as session, session.begin():
            campaign = _campaign(session, self._campaign_id)
            campaign.privacy = privacy.model_dump() if privacy else None
            campaign.population = population
            session.add(campaign)
            if secret is not None:
                session.add(CampaignSecretRow(campaign_id=self._campaign_id, secret=secret))
            session.add(self._checkpoint(step))

    def secret(self) -> bytes:
        """What this round's noise and draws follow from; never the same in two rounds."""
        with reading(self._sessions) as session:
            return session.get_one(CampaignSecretRow, self._campaign_id).secret

    def checkpoint(self, number: int) -> CheckpointRow:
        """That of a round that is done; 0 is the starting model."""
        with reading(self._sessions) as session:
            return session.get_one(CheckpointRow, (self._campaign_id, number))

    def newest_checkpoint(self) -> CheckpointRow | None:
        query = select(CheckpointRow).where(CheckpointRow.campaign_id == self._campaign_id)
        with reading(self._sessions) as session:
            return session.exec(query.order_by(col(CheckpointRow.round).desc()).limit(1)).first()

    def tries(self) -> Sequence[RoundRow]:
        """All tries at all rounds, in order; whether a device answered after its round was over may be missing."""
        newest = self._newest_tries()
        return [*self._settled, *newest]

    def past(self) -> Past:
        """What all tries say of each device."""
        newest = self._newest_tries()
        return self._past.with_rows(newest)

    def _newest_tries(self) -> list[RoundRow]:
        """Those of the newest round; the others are settled then."""
        after_round = self._settled[-1].round if self._settled else 0
        with reading(self._sessions) as session:
            rows = tries_of(session, self._campaign_id, after_round=after_round)
        newest = rows[-1].round if rows else 0
        for row in rows:
            if row.round < newest:
                self._settled.append(row)
                self._past.add(row)
        return [row for row in rows if row.round == newest]

    def open_try(self, number: int) -> RoundRow | None:
        """The try at this round that waits or aggregates, if there is one."""
        return next((row for row in self._newest_tries() if row.round == number and row.state in _OPEN), None)

    def fleet(self, *, heartbeat_s: float, only: Iterable[str]) -> list[Device]:
        """Devices that were not revoked, as far as selection looks at them."""
        now = self._now()
        with reading(self._sessions) as session:
            return device_service.candidates(session, only=only, now=now, heartbeat_s=heartbeat_s)

    def codecs_of(self, devices: Iterable[DeviceId]) -> dict[DeviceId, list[str]]:
        """What each of these devices can compress with, as it says."""
        with reading(self._sessions) as session:
            return device_service.codecs_of(session, devices)

    def busy(self) -> dict[DeviceId, str]:
        """Devices that other campaigns wait for, with their ids."""
        with reading(self._sessions) as session:
            return work_service.busy_with(session, except_for=self._campaign_id)

    def wait_in_line(self, waits: bool) -> None:  # the flag is what is stored
        """Stores since when the campaign waits for devices that others have, or that it does not."""
        with self._sessions() as session, session.begin():
            _wait_in_line(session, _campaign(session, self._campaign_id), since=self._now() if waits else None)

    def rivals(self) -> list[Rival]:
        """Running campaigns that have waited longer than this one, the longest first."""
        with reading(self._sessions) as session:
            own = _campaign(session, self._campaign_id).waiting_since
            query = (
                select(CampaignRow)
                .join(JobRecord, col(JobRecord.job_id) == CampaignRow.job_id)
                .where(JobRecord.state == JobState.RUNNING, CampaignRow.campaign_id != self._campaign_id)
                .where(col(CampaignRow.waiting_since).is_not(None))
                .order_by(col(CampaignRow.waiting_since), col(CampaignRow.campaign_id))
            )
            waiting = session.exec(query).all()
        before = [row for row in waiting if own is None or _place(row) < (own, self._campaign_id)]
        return [Rival(row.campaign_id, row.task, frozenset(row.devices)) for row in before]

    def carried(self, number: int) -> dict[DeviceId, str]:
        """Devices whose work for an earlier round, or try, counts in this one, with its id: asynchronous rounds."""
        tries = self._newest_tries() if self._staleness_max else ()
        missed = unanswered_of(tries[-1]) if tries else {}
        if not missed:
            return {}
        with reading(self._sessions) as session:
            found = {one.work_id: one for one in work_service.outcomes_of(session, missed.values())}
        return {
            device: work_id
            for device, work_id in missed.items()
            if found[work_id].state is not WorkState.EXPIRED and number - found[work_id].round <= self._staleness_max
        }

    def ask(
        self,
        asked: Round,
        works: Mapping[DeviceId, Work],
        *,
        carried: Mapping[DeviceId, str],
        selection: Selection,
    ) -> RoundRow:
        """Stores the try and its work, all or nothing; `carried` are devices with work from before.

        Raises DevicesBusyError when another campaign was quicker: then nothing is stored.
        """
        now = self._now()
        with self._sessions() as session, session.begin():
            if taken := works.keys() & work_service.busy_with(session, except_for=self._campaign_id).keys():
                raise DevicesBusyError(f"Expected idle devices, got {min(taken)}, whom another campaign has just asked")
            row = new_try(self._campaign_id, asked, works, carried=carried, selection=selection, now=now)
            session.add(row)
            _wait_in_line(session, _campaign(session, self._campaign_id), since=None)
            for device_id, work in works.items():
                work_service.create_work(session, work, device_id=device_id, now=now)
            return row

    def ask_step(self, row: RoundRow, works: Mapping[DeviceId, Work]) -> None:
        """Stores the work of a later step of secure aggregation, all or nothing."""
        now = self._now()
        with self._sessions() as session, session.begin():
            _open_row(session, row)
            for device_id, work in works.items():
                work_service.create_work(session, work, device_id=device_id, now=now)

    def steps_of(self, row: RoundRow) -> list[WorkOutcome]:
        """All work of the try's round, other tries' and later steps' included."""
        with reading(self._sessions) as session:
            return work_service.results_of(session, campaign_id=row.campaign_id, round=row.round)

    def take_back(self, row: RoundRow) -> None:
        """What is still pending of the round: its devices no longer get it."""
        with self._sessions() as session, session.begin():
            work_service.expire_round(session, campaign_id=row.campaign_id, round=row.round, now=self._now())

    def could_not_ask(self, given_up: Round, *, selection: Selection, reason: str) -> None:
        """Stores a try that found too few devices to ask."""
        with self._sessions() as session, session.begin():
            row = excluded_try(self._campaign_id, given_up, selection=selection, reason=reason, now=self._now())
            session.add(row)

    def work_of(self, row: RoundRow) -> dict[str, WorkOutcome]:
        """The work of this very try, by id."""
        with reading(self._sessions) as session:
            return work_of(session, row)

    def answers_to(self, row: RoundRow, *, except_for: Collection[str]) -> dict[str, WorkOutcome]:
        """The work of this very try that has a result, by id; what was read before is left out by its ids."""
        since_round = row.round - self._staleness_max
        with reading(self._sessions) as session:
            ended = work_service.ended_ids(session, campaign_id=row.campaign_id, since_round=since_round)
            if not (new := ended - set(except_for)):
                return {}
            found = work_service.outcomes_of(session, new & set(row.work_ids.values()))
        return {outcome.work_id: outcome for outcome in found if outcome.result is not None}

    def note(
        self, row: RoundRow, now_is: Round, *, news: Mapping[DeviceId, DeviceOutcome], reason: str = ""
    ) -> RoundRow:
        """Stores what was heard, and when the round is over takes back the work that nobody finished."""
        with self._sessions() as session, session.begin():
            stored = _open_row(session, row)
            work = work_of(session, stored)
            if now_is.state is not RoundState.WAITING:
                next_round = row.round + (now_is.state is not RoundState.ABANDONED)
                stale = [
                    one.work_id
                    for one in work.values()
                    if one.state is WorkState.PENDING
                    and (not self._staleness_max or next_round - one.round > self._staleness_max)
                ]
                work_service.expire(session, work_ids=stale, now=self._now())
            steps = _steps_of(session, stored)
            write_round(stored, now_is, news=news, work=work, reason=reason, now=self._now(), steps=steps)
            session.add(stored)
            for device_id in rejected_of(news, work.values()):
                device_service.record_rejection(session, device_id)
            return stored

    def take_back_all(self) -> None:
        """Nobody trains for the campaign any more: what is still pending, of whatever round, is expired."""
        with self._sessions() as session, session.begin():
            work_service.expire_campaign(session, self._campaign_id, now=self._now())

    def finish_round(self, row: RoundRow, finished: Round, step: Step, *, verdicts: Mapping[str, Verdict]) -> None:
        """Stores the new model and that the round is done, together with what a robust rule thinks of each update."""
        with self._sessions() as session, session.begin():
            stored = _open_row(session, row)
            works, steps = work_of(session, stored), _steps_of(session, stored)
            write_round(stored, finished, news={}, work=works, reason="", now=self._now(), steps=steps)
            write_verdicts(stored, verdicts)
            stored.accuracy, stored.loss = step.accuracy, step.loss
            session.add(stored)
            session.add(self._checkpoint(step))
            _turn_secret(session, self._campaign_id)
            note_late(session, self._campaign_id, after_round=step.round - LATE_ROUNDS)

    def finish_campaign(self, new: NewVersion, *, model_version_id: str) -> ModelVersion:
        """Registers the result and notes it in the campaign, together; the second time it is the same version."""
        with self._sessions() as session, session.begin():
            note_late(session, self._campaign_id, after_round=0)
            work_service.expire_campaign(session, self._campaign_id, now=self._now())
            version = register(session, new, model_version_id=model_version_id, now=self._now())
            campaign = _campaign(session, self._campaign_id)
            campaign.result_model_version_id = version.model_version_id
            session.add(campaign)
            forget_secret(session, self._campaign_id)
            return version

    def finish_analysis(self, found: Findings) -> None:
        """Notes the answer; the second time it is the same."""
        with self._sessions() as session, session.begin():
            campaign = _campaign(session, self._campaign_id)
            campaign.findings = found.model_dump()
            session.add(campaign)

    def _checkpoint(self, step: Step) -> CheckpointRow:
        return CheckpointRow(
            campaign_id=self._campaign_id,
            round=step.round,
            model=step.model.model_dump(),
            memory=step.memory.model_dump() if step.memory else None,
            accuracy=step.accuracy,
            loss=step.loss,
            created_at=self._now(),
        )


def forget_secret(session: Session, campaign_id: str) -> None:
    """The campaign is over: what its noise followed from is gone."""
    if row := session.get(CampaignSecretRow, campaign_id):
        session.delete(row)


def _turn_secret(session: Session, campaign_id: str) -> None:
    if row := session.get(CampaignSecretRow, campaign_id):
        row.secret = next_secret(row.secret)
        session.add(row)


def _campaign(session: Session, campaign_id: str) -> CampaignRow:
    return session.get_one(CampaignRow, campaign_id)


def _wait_in_line(session: Session, campaign: CampaignRow, *, since: float | None) -> None:
    """Keeps the place of a campaign that waits already."""
    campaign.waiting_since = campaign.waiting_since or since if since is not None else None
    session.add(campaign)


def _place(row: CampaignRow) -> tuple[float, str]:
    return row.waiting_since or 0.0, row.campaign_id


def _open_row(session: Session, row: RoundRow) -> RoundRow:
    """The row as it is now. Raises JobCancelledError when an operator closed it meanwhile: that decision stands."""
    stored = session.get_one(RoundRow, row.round_id)
    if stored.state not in _OPEN:
        raise JobCancelledError
    return stored


def _steps_of(session: Session, row: RoundRow) -> list[WorkOutcome]:
    """Work of the try's later steps, of secure aggregation; there is none before the try is closed."""
    if row.state == RoundState.WAITING or not _campaign(session, row.campaign_id).secure:
        return []
    ids = {step_work_id(work_id, step) for work_id in row.work_ids.values() for step in SecureStep}
    found = work_service.results_of(session, campaign_id=row.campaign_id, round=row.round)
    return [one for one in found if one.work_id in ids]
