"""Runs one campaign: its own round loop around a strategy.

A thin shell. `rounds` says what state a round is in, `selection` who is asked, `updates` what may be aggregated,
`aggregating` how; `journal` keeps each step before the next one starts.
"""

from collections.abc import Callable, Iterable
from functools import partial

import structlog

from cloud.campaigns.aggregating import Aggregator
from cloud.campaigns.appending import TreeAggregator
from cloud.campaigns.asking import Asking, Waiting
from cloud.campaigns.cohort import Cohort
from cloud.campaigns.errors import AggregationFailedError, CampaignFailedError, DevicesBusyError
from cloud.campaigns.journal import Journal, Step
from cloud.campaigns.lineage import lineage_of
from cloud.campaigns.measuring import Measuring
from cloud.campaigns.models import CheckpointRow, RoundRow
from cloud.campaigns.privacy import planned
from cloud.campaigns.rounds import (
    Answer,
    Round,
    RoundState,
    ask,
    extend,
    finish,
    give_up,
    open_round,
    tick,
    why_abandoned,
)
from cloud.campaigns.selection import Selection
from cloud.campaigns.tries import read_round
from cloud.campaigns.updates import Expected, ExpectedTrees
from cloud.campaigns.user_privacy import spent_by_devices
from cloud.jobs.context import JobCancelledError, JobContext
from cloud.registry.service import NewVersion
from shared.api.campaigns import DeviceOutcome, PrivacyBudget
from shared.api.models import ModelVersion
from shared.ids import DeviceId, uuid7
from shared.layout import Layout
from shared.messages.base import ObjectRef
from shared.privacy import PrivacySpec, UserPrivacySpec
from shared.randomness import KEY_BYTES
from shared.strategies import (
    FedBuffSettings,
    FedPerSettings,
    FedRepSettings,
    FedXgbBaggingSettings,
    kept_on_clients,
    strategy,
)
from shared.tasks.registry import load_task
from shared.tasks.torch_model import trained_names
from shared.tensors import Tensors, decode, encode
from shared.trees.boosting import boosting_of

ATTEMPTS_MAX = 3
"""Tries at one round before the campaign gives up."""
ASKS_MAX = 100
"""How often a round looks again because another campaign was quicker."""
NOTE_S = 0.5
"""How often a waiting round's news are stored, for those who watch."""
NOTE_REST = 20
"""And so many times as long as storing them took."""
POLL_S = 0.25
"""How often a waiting round looks by itself; a device's answer wakes it."""

_log = structlog.get_logger()


class CampaignRunner:
    """One campaign, from wherever its journal says it is.

    Args:
        context: The job's.
        campaign_id: Which campaign.
        ring: Rings devices' doorbells and returns at once.
        sleep: Waits some seconds.
        random_bytes: Unpredictable ones.
    """

    def __init__(
        self,
        context: JobContext,
        campaign_id: str,
        *,
        ring: Callable[[Iterable[DeviceId]], None],
        sleep: Callable[[float], None],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._context = context
        self._campaign = Journal(context.sessions, campaign_id, now=context.now).campaign()
        self._settings = strategy(self._campaign.strategy, self._campaign.strategy_settings)
        # An asynchronous strategy closes a round with so many updates, and lets the others go on.
        self._buffered = self._settings if isinstance(self._settings, FedBuffSettings) else None
        stale = self._buffered.staleness_max if self._buffered else 0
        self._journal = Journal(context.sessions, campaign_id, now=context.now, staleness_max=stale)
        self._task = load_task(self._campaign.task)
        self._local = self._task.local_training.chosen(private=self._campaign.privacy_budget is not None)
        user = self._campaign.user_privacy
        self._user_privacy = UserPrivacySpec.model_validate(user) if user else None
        self._trained = trained_names(self._task.model(seed=0), self._local.trained_parameters)
        self._cohort = Cohort(self._journal, self._campaign)
        self._measuring = Measuring(self._task)
        self._ring = ring
        self._sleep = sleep
        self._random_bytes = random_bytes

    def run(self) -> ModelVersion:
        """The registered result.

        Raises:
            CampaignFailedError: A round was abandoned too often, or the fleet or the task is not what it was.
            JobCancelledError: Somebody cancelled; open work was taken back.
        """
        checkpoint = self._begin()
        while checkpoint.round < self._campaign.rounds:
            if self._must_end_early(checkpoint):
                break
            checkpoint = self._run_round(checkpoint)
        return self._finish(checkpoint)

    def _begin(self) -> CheckpointRow:
        """The newest checkpoint; the first time, that of the starting model."""
        if self._task.version != self._campaign.task_version:
            raise CampaignFailedError(
                f"Expected task {self._task.name!r} in version {self._campaign.task_version}, got {self._task.version}"
            )
        if (found := self._journal.newest_checkpoint()) is None:
            self._report(0, step="Measuring the starting model")
            self._check_kept()
            start = self._journal.start_version()
            figures = self._measuring.validation(self._load(start.weights))
            step = Step(0, start.weights, None, accuracy=figures.accuracy, loss=figures.loss)
            # Fresh from the system, and stored before anything follows from it.
            secret = self._random_bytes(KEY_BYTES) if self._campaign.user_privacy else None
            population = self._cohort.population()
            self._journal.begin(step, privacy=self._plan_privacy(), population=population, secret=secret)
            found = self._journal.newest_checkpoint()
        self._campaign = self._journal.campaign()
        self._cohort = Cohort(self._journal, self._campaign)
        assert found is not None
        return found

    def _check_kept(self) -> None:
        """Before anybody trains: raises StrategySettingError where FedPer's own layers are none of this model's."""
        if isinstance(self._settings, FedPerSettings | FedRepSettings):
            own = [name for name in self._trained if name.startswith(self._settings.local)]
            kept_on_clients(self._settings, own, self._trained)

    def _plan_privacy(self) -> PrivacySpec | None:
        budget = self._campaign.privacy_budget
        asked = PrivacyBudget.model_validate(budget) if budget else None
        return planned(self._task, asked, rounds=self._campaign.rounds)

    def _run_round(self, checkpoint: CheckpointRow) -> CheckpointRow:
        """The checkpoint after the next round, in as many tries as it takes. Raises CampaignFailedError."""
        number = checkpoint.round + 1
        while True:
            tries = [row for row in self._journal.tries() if row.round == number]
            abandoned = [row for row in tries if row.state == RoundState.ABANDONED]
            if len(abandoned) >= ATTEMPTS_MAX:
                raise CampaignFailedError(
                    f"Expected round {number} to succeed in {ATTEMPTS_MAX} tries: {abandoned[-1].reason}",
                    hint="`fleetlearn campaigns show` says what each device did in each try.",
                )
            if self._try_round(number, checkpoint, attempt=len(abandoned) + 1):
                done = self._journal.newest_checkpoint()
                assert done is not None
                return done

    def _try_round(self, number: int, checkpoint: CheckpointRow, *, attempt: int) -> bool:
        """Whether this try, new or found in the journal, made a new model."""
        asking = self._asking(checkpoint)
        row = self._journal.open_try(number)
        row = self._ask(number, asking, attempt=attempt) if row is None else self._go_on(row)
        if row is None or (row := self._wait(row, asking)).state == RoundState.ABANDONED:
            return False
        return self._aggregate(row, asking)

    def _asking(self, checkpoint: CheckpointRow) -> Asking:
        model = self._load(ObjectRef.model_validate(checkpoint.model))
        memory = self._load(ObjectRef.model_validate(checkpoint.memory)) if checkpoint.memory else {}
        return Asking(
            self._context,
            self._journal,
            self._campaign,
            self._task,
            settings=self._settings,
            aggregator=self._aggregator(model),
            model=model,
            memory=memory,
            expected=self._expected(),
        )

    def _aggregator(self, model: Tensors) -> Aggregator | TreeAggregator:
        settings, boosting = self._settings, boosting_of(self._task)
        if isinstance(settings, FedXgbBaggingSettings):
            assert boosting is not None
            return TreeAggregator(settings, boosting)
        layout = Layout.of({name: model[name] for name in self._trained})
        population, folder = self._campaign.population or 1, self._context.work_dir / "updates"
        return Aggregator(settings, layout, population=population, folder=folder, user=self._user_privacy)

    def _expected(self) -> Expected:
        boosting, local = boosting_of(self._task), self._local
        trees = ExpectedTrees(boosting, local.steps, local.learning_rate) if boosting else None
        return Expected(self._trained, extras=self._settings.extras, metrics=self._settings.metrics, trees=trees)

    def _ask(self, number: int, asking: Asking, *, attempt: int) -> RoundRow | None:
        """The try with its work stored, or None where too few devices could be asked in time."""
        opened = open_round(number, attempt=attempt, quorum=self._cohort.quorum)
        for _ in range(ASKS_MAX):
            selection = self._cohort.wait(
                number, now=self._context.now, sleep=self._sleep, told=lambda why: self._lack(number, why)
            )
            try:
                return self._ask_them(opened, selection, asking)
            except DevicesBusyError as busy:
                self._lack(number, busy.message)
        raise CampaignFailedError(f"Expected devices for round {number}, other campaigns were quicker {ASKS_MAX} times")

    def _ask_them(self, opened: Round, selection: Selection, asking: Asking) -> RoundRow | None:
        if not self._cohort.is_enough(selection, opened.number):
            reason = self._cohort.why_not_enough(selection)
            self._journal.could_not_ask(give_up(opened), selection=selection, reason=reason)
            campaign_id = self._campaign.campaign_id
            _log.warning("round_abandoned", campaign_id=campaign_id, round=opened.number, reason=reason)
            return None
        selection = self._cohort.draw(selection, opened)
        deadline_at = self._context.now() + self._campaign.round_timeout_s
        carried = self._journal.carried(opened.number)
        asked = ask(opened, [*selection.chosen, *carried], deadline_at=deadline_at)
        return asking.ask(asked, carried=carried, selection=selection)

    def _lack(self, number: int, why: str) -> None:
        self._context.check_cancelled()
        self._report(number - 1, step=f"Round {number}: {why}")

    def _go_on(self, row: RoundRow) -> RoundRow:
        """The try found in the journal; the time when nobody could answer us does not count against the devices."""
        current = read_round(row)
        _log.info("round_resumed", campaign_id=row.campaign_id, round=row.round, attempt=row.attempt, state=row.state)
        if current.state is not RoundState.WAITING:
            return row
        longer = extend(current, deadline_at=self._context.now() + self._campaign.round_timeout_s)
        return self._journal.note(row, longer, news={})

    def _wait(self, row: RoundRow, asking: Asking) -> RoundRow:
        """The try once it no longer waits: closed, or abandoned."""
        current = read_round(row)
        self._ring(device for device, answer in current.answers.items() if answer is Answer.WAITING)
        enough = self._buffered.buffer if self._buffered else self._cohort.enough
        replies, heard, news = asking.replies(row.round), set[str](), dict[DeviceId, DeviceOutcome]()
        note_at = self._context.now() + NOTE_S
        while current.state is RoundState.WAITING:
            self._check_cancelled(row, current)
            now = self._context.now()
            if answers := self._journal.answers_to(row, except_for=heard):
                heard |= answers.keys()
                current, newest = replies.hear(current, answers)
                news |= newest
                self._report_waiting(current)
            current = tick(current, now=now, enough=enough)
            # What was heard can be heard again after a crash: results are on disk. So it is noted for those who watch.
            if current.state is not RoundState.WAITING or (news and now >= note_at):
                reason = why_abandoned(current) if current.state is RoundState.ABANDONED else ""
                row, news = self._journal.note(row, current, news=news, reason=reason), {}
                # A large cohort's news take long to store: never more than a small part of the time.
                note_at = self._context.now() + max(NOTE_S, NOTE_REST * (self._context.now() - now))
            if current.state is RoundState.WAITING:
                self._sleep(POLL_S)
        return row

    def _check_cancelled(self, row: RoundRow, current: Round) -> None:
        try:
            self._context.check_cancelled()
        except JobCancelledError:
            self._journal.note(row, give_up(current), news={}, reason="Cancelled")
            self._journal.take_back_all()
            raise

    def _aggregate(self, row: RoundRow, asking: Asking) -> bool:
        """Whether the updates made a new model; it is stored then, and otherwise the try is abandoned."""
        closed = read_round(row)
        self._report(row.round - 1, step=f"Round {row.round}: averaging {len(closed.accepted)} updates")
        try:
            made = asking.aggregate(row, closed, waiting=Waiting(self._ring, partial(self._wait_a_moment, row)))
        except AggregationFailedError as error:
            self._journal.note(row, give_up(closed), news={}, reason=error.message)
            return False
        tensors = {**asking.model, **made.tensors}
        figures = self._measuring.validation(tensors)
        step = Step(
            row.round,
            self._context.blobs.put(encode(tensors)),
            self._context.blobs.put(encode(made.memory)) if made.memory else None,
            accuracy=figures.accuracy,
            loss=figures.loss,
        )
        self._journal.finish_round(row, finish(closed), step, verdicts=made.verdicts)
        self._report(
            row.round,
            step=f"Round {row.round} done{self._cost(row.round)}",
            accuracy=figures.accuracy,
            loss=figures.loss,
        )
        return True

    def _cost(self, rounds: int) -> str:
        """What so many rounds cost each device, in words; nothing without user-level privacy."""
        spent = spent_by_devices(self._user_privacy, rounds=rounds)
        return f", epsilon {spent.epsilon:.3g} spent for each device" if spent else ""

    def _wait_a_moment(self, row: RoundRow, what_for: str) -> None:
        self._check_cancelled(row, read_round(row))
        self._report(row.round - 1, step=f"Round {row.round}: {what_for}")
        self._sleep(POLL_S)

    def _must_end_early(self, checkpoint: CheckpointRow) -> bool:
        """Whether privacy is used up; what the rounds so far achieved is the result then."""
        is_between_rounds = checkpoint.round > 0 and self._journal.open_try(checkpoint.round + 1) is None
        if not is_between_rounds or not self._cohort.has_used_up_its_privacy():
            return False
        _log.warning("campaign_ends_early", campaign_id=self._campaign.campaign_id, rounds_done=checkpoint.round)
        return True

    def _finish(self, checkpoint: CheckpointRow) -> ModelVersion:
        self._report(checkpoint.round, step="Measuring the result")
        weights = ObjectRef.model_validate(checkpoint.model)
        unseen = self._measuring.unseen(self._load(weights))
        new = NewVersion(
            origin=f"campaign:{self._campaign.campaign_id}",
            task=self._task.name,
            task_version=self._task.version,
            weights=weights,
            metrics={
                "validation_accuracy": checkpoint.accuracy,
                "validation_loss": checkpoint.loss,
                "unseen_accuracy": unseen.accuracy,
                "unseen_loss": unseen.loss,
            },
            lineage=lineage_of(self._campaign, self._journal.tries(), job_id=self._context.job_id),
            created_by_principal=self._campaign.created_by_principal,
            created_by_role=self._campaign.created_by_role,
        )
        now_ms = int(self._context.now() * 1000)
        version_id = uuid7(unix_ms=now_ms, random_bytes=self._random_bytes(10))
        return self._journal.finish_campaign(new, model_version_id=version_id)

    def _load(self, ref: ObjectRef) -> Tensors:
        return decode(self._context.blobs.get(ref.digest))

    def _report(self, rounds_done: int, *, step: str, **figures: float) -> None:
        self._context.report_progress(
            fraction=rounds_done / self._campaign.rounds,
            step=step,
            rounds_done=rounds_done,
            rounds=self._campaign.rounds,
            **figures,
        )

    def _report_waiting(self, current: Round) -> None:
        answered = len(current.answers) - current.count(Answer.WAITING)
        step = f"Round {current.number}: {answered} of {len(current.answers)} devices answered"
        self._report(current.number - 1, step=step, answered=answered, asked=len(current.answers))
