"""One piece of work from instruction to result: check, reserve, train, keep, answer.

The order is the promise: the ledger is written before training looks at the data, and the update is on disk before the
result is said. Whatever the cloud asked wrongly becomes a result with a reason, never an exception.
"""

import hashlib
import math
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from edge_agent.training.analytics import answer_of
from edge_agent.training.charges import data_event, device_charge
from edge_agent.training.client_app import app, strategy_of
from edge_agent.training.compressing import outgoing, why_in_full
from edge_agent.training.errors import RefusedWorkError
from edge_agent.training.flower_apps import FlowerAppFailedError, FlowerApps
from edge_agent.training.flower_call import Answer, call_client
from edge_agent.training.ledger import Finished, Kept, Ledger
from edge_agent.training.secure import SecureAggregationUnavailableError, SecureRounds
from edge_agent.training.user_privacy import clipped
from shared.analytics.noise import noise_on_each
from shared.beside import take_beside
from shared.compression.settings import Compression
from shared.compression.shared_mask import mask_seed, why_not_linear
from shared.errors import FleetlearnError
from shared.files import write_atomically
from shared.messages.base import Message
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import AFTER_WORK, FlowerWork, SecureStep, Work, WorkKind
from shared.privacy import PrivacySpent
from shared.randomness import SecureRandomness
from shared.tasks.errors import TaskDataError, UnknownTaskError
from shared.tasks.registry import load_task
from shared.tasks.task import DeviceData, Task
from shared.tasks.updates import check_update
from shared.tensors import Tensors, decode, encode
from shared.trees.boosting import boosting_of
from shared.trees.ensemble import read_ensemble

SEED_BITS = 64
_EXAMPLES = "num-examples"
_STRATEGY = "strategy/"
"""In what is kept: before the names of the strategy's own vectors."""


_NAMES = {WorkKind.TRAIN: "training", WorkKind.ANALYZE: "an answer"}
"""Of work from which something leaves the device that depends on its data."""


class Job(Message):
    """One line to the worker: the work, where its model lies, and where the update shall lie."""

    work: Work
    model_path: str
    update_path: str


@dataclass(frozen=True)
class Worker:
    """What all jobs of one process share."""

    data_dir: Path
    ledger: Ledger
    allow_without_privacy: bool
    """Whether the device's owner lets updates leave that no noise protects; otherwise such work is refused."""
    secure: SecureRounds | None = None
    """Its part in secure aggregation; None where the process knows no identity."""
    secure_min: int = 0
    """Above 0, no update leaves by itself; sums of fewer devices are `SecureRounds.policy`'s to refuse."""
    flower: FlowerApps | None = None
    """The Flower apps that the owner installed; None: the owner allows none."""

    def perform(self, job: Job) -> WorkResult:
        """The result, once the update of training is at the job's `update_path`; who uploads it adds `update`."""
        try:
            return self._perform(job)
        except (FleetlearnError, ValidationError, OSError) as error:
            status = WorkStatus.FAILED if isinstance(error, OSError) else WorkStatus.REFUSED
            reason, charged = _reason(error), self._charged(job.work)
            return WorkResult(work_id=job.work.work_id, status=status, reason=reason, privacy=charged)

    def _perform(self, job: Job) -> WorkResult:
        work = job.work
        if work.flower is not None:
            return self._run_flower(job, work.flower)
        if work.kind is WorkKind.AGGREGATE:
            return self._aggregate(job)
        task, data = self._requested(work)
        if work.kind is WorkKind.EVALUATE:
            metrics = self._run(work, _model(job)).metrics
            return WorkResult(work_id=work.work_id, status=WorkStatus.DONE, metrics=metrics)
        does = self._analyze if work.kind is WorkKind.ANALYZE else self._train
        finished = self.ledger.finished(work.work_id) or does(job, task, data)
        sent, metrics = finished.update, finished.metrics
        if work.secure:
            # The update stays here until it is masked.
            sent = self._rounds().advertise(
                work.secure, model=_model(job), update=decode(finished.update), user=work.user_privacy
            )
        if work.secure or work.user_privacy:
            # And so do figures that say more about one device than its size.
            metrics = {name: value for name, value in metrics.items() if name == _EXAMPLES}
        # Not flushed: the ledger's copy is on disk, and whoever lost this one asks again.
        Path(job.update_path).write_bytes(sent)
        return WorkResult(
            work_id=work.work_id,
            status=WorkStatus.DONE,
            reason=why_in_full(work.compression),
            metrics=metrics,
            privacy=self._charged(work),
            ledger=self.ledger.told(),
        )

    def _aggregate(self, job: Job) -> WorkResult:
        """A later step of secure aggregation."""
        secure = job.work.secure
        if secure is None or secure.step is SecureStep.ADVERTISE:
            raise RefusedWorkError("Expected a step of secure aggregation with its terms, got none")
        write_atomically(Path(job.update_path), self._rounds().answer(secure, _payload(job)))
        return WorkResult(work_id=job.work.work_id, status=WorkStatus.DONE)

    def _run_flower(self, job: Job, asked: FlowerWork) -> WorkResult:
        """A message of somebody's Flower app. No ledger can vouch for what its answer says of the data."""
        if self.flower is None:
            raise RefusedWorkError(
                "Expected no Flower app, as this device's owner allows none, got one",
                hint="The owner may install it, and run the agent with --flower-apps FOLDER.",
            )
        if not self.allow_without_privacy or self.secure_min:
            raise RefusedWorkError(
                "Expected work whose privacy this device can account for, as its owner wants, got a Flower app's",
                hint="The owner may run the agent with --allow-without-privacy, and without --secure-min.",
            )
        try:
            answer = self.flower.answer(job.work.work_id, job.work.campaign_id, asked, _payload(job))
        except FlowerAppFailedError as error:
            return WorkResult(work_id=job.work.work_id, status=WorkStatus.FAILED, reason=error.message)
        write_atomically(Path(job.update_path), answer.records)
        return WorkResult(work_id=job.work.work_id, status=WorkStatus.DONE, metrics=answer.metrics)

    def _rounds(self) -> SecureRounds:
        if self.secure is None:
            raise SecureAggregationUnavailableError("Expected an identity to sign with, got none")
        return self.secure

    def _requested(self, work: Work) -> tuple[Task, DeviceData]:
        task = load_task(work.task)
        if task.version != work.task_version:
            raise UnknownTaskError(
                f"Expected version {task.version!r} of task {task.name!r}, as installed, got {work.task_version!r}"
            )
        data = task.device_data(self.data_dir)
        if work.kind is WorkKind.TRAIN and not len(data.train):
            raise TaskDataError(f"Expected training examples in {self.data_dir}, got none")
        if work.secure and work.secure.training != work.work_id:
            raise RefusedWorkError("Expected secure aggregation of this very work, got another's")
        if work.secure and work.compression and (why := why_not_linear(Compression.parse(work.compression))):
            raise RefusedWorkError(f"Expected updates that add up under secure aggregation: {why}")
        if boosting_of(task) and work.kind is WorkKind.TRAIN:
            _expect_plain(work)
        leaves = work.kind in _NAMES
        if leaves and not work.secure and self.secure_min:
            raise RefusedWorkError(
                f"Expected secure sums of at least {self.secure_min} devices, as this device's owner wants, got none",
                hint="Start the campaign, or ask the question, with --secure.",
            )
        if leaves and work.privacy is None and not self.allow_without_privacy:
            raise RefusedWorkError(
                f"Expected {_NAMES[work.kind]} with privacy, as this device's owner wants, got work without",
                hint="The device's owner may allow work without privacy; whoever asks may give a budget.",
            )
        return task, data

    def _train(self, job: Job, task: Task, data: DeviceData) -> Finished:
        model, before = _model(job), self._kept(job.work)
        self._reserve(job.work, task, data)
        answer = self._run(job.work, model, before)
        _check(task, model, answer.update)
        secure = job.work.secure
        sent = outgoing(
            clipped(answer.update, model, job.work.user_privacy),
            model,
            job.work.compression,
            kept=before,
            seed=secrets.randbits(SEED_BITS),
            mask=mask_seed(secure.terms.round_id) if secure else None,
        )
        after = sent.kept | _as_received(answer.kept, sent.rounding)
        kept = Kept(job.work.campaign_id, encode(after)) if after else None
        return self.ledger.finish(job.work.work_id, update=sent.update, metrics=answer.metrics, kept=kept)

    def _analyze(self, job: Job, task: Task, data: DeviceData) -> Finished:
        work = job.work
        if work.query is None or work.compression:
            raise RefusedWorkError("Expected a question, to be answered in full, got work without or compressed")
        noise = noise_on_each(work.query, work.privacy, work.secure)
        self._reserve(work, task, data)
        # Over what is trained on alone: that is the data set whose account pays.
        answer = answer_of(work.query, task, data.train, noise=noise, randomness=SecureRandomness.from_system())
        check_update(_model(job), answer)
        # How many examples a device has is not told beside what is noised: all answers weigh the same.
        return self.ledger.finish(work.work_id, update=encode(answer), metrics={_EXAMPLES: 1.0})

    def _kept(self, work: Work) -> bytes | None:
        """What was kept of the campaign's newest work of this device that counted. Raises RefusedWorkError."""
        after_work = str(work.config.get(AFTER_WORK, ""))
        found = self.ledger.kept(work.campaign_id, after_work=after_work) if after_work else None
        if after_work and found is None and strategy_of(work.config).is_remembered_by_clients:
            raise RefusedWorkError(
                f"Expected what this device kept of its work {after_work} in this campaign, it is no longer there",
                hint="Without it the campaign's strategy would be wrong about this device; the others go on.",
            )
        return found

    def _run(self, work: Work, model: Tensors, kept: bytes | None = None) -> Answer:
        """What the ClientApp makes of the work."""
        # The task last, so that no configuration can name another than the one that was checked.
        config = {**work.config, "task": work.task, "task-version": work.task_version}
        answer = call_client(
            app,
            kind=work.kind,
            model=model,
            config=config,
            privacy=work.privacy,
            kept=_strategys(kept),
            node_config={"data-dir": str(self.data_dir)},
        )
        finite = {name: value for name, value in answer.metrics.items() if math.isfinite(value)}
        return replace(answer, metrics=finite)

    def _reserve(self, work: Work, task: Task, data: DeviceData) -> None:
        self.ledger.reserve(
            work.work_id,
            dataset_id=data.dataset_id,
            event=data_event(work, task, data.dataset_id),
            beside=device_charge(work),
        )

    def _charged(self, work: Work) -> PrivacySpent | None:
        """The account that the work was charged to: its data set's, or the device's where that is the only one."""
        if (spent := self.ledger.charged(work.work_id)) is not None or not self.ledger.is_reserved(work.work_id):
            return spent
        beside = device_charge(work)
        return None if beside is None else self.ledger.charged(beside.charge_id)


def _expect_plain(work: Work) -> None:
    """Raises RefusedWorkError for what no tree goes with: whoever asked believes in a protection that is not there."""
    if work.privacy or work.user_privacy or work.secure or work.compression:
        raise RefusedWorkError(
            f"Expected {work.task} to be asked for whole trees, got work with privacy, a secure sum or compression"
        )


def _check(task: Task, model: Tensors, update: Tensors) -> None:
    """Passes what may leave, or raises."""
    if boosting := boosting_of(task):
        read_ensemble(update, boosting)
    else:
        check_update(model, take_beside(update)[0])


def _as_received(kept: Tensors, rounding: Tensors) -> Tensors:
    """What a strategy keeps, ready to be stored.

    A vector that is sent too is kept as the sum of what was received: compression rounds, and otherwise the server's
    control would drift away from those of its devices.
    """
    exact = {name: np.add(value, rounding[name]) if name in rounding else value for name, value in kept.items()}
    return {f"{_STRATEGY}{name}": value for name, value in exact.items()}


def _strategys(kept: bytes | None) -> Tensors:
    """What a strategy kept, among all that was."""
    found = {} if kept is None else decode(kept)
    return {name.removeprefix(_STRATEGY): value for name, value in found.items() if name.startswith(_STRATEGY)}


def _model(job: Job) -> Tensors:
    return decode(_payload(job))


def _payload(job: Job) -> bytes:
    payload = Path(job.model_path).read_bytes()
    if (digest := hashlib.sha256(payload).hexdigest()) != job.work.model.digest:
        raise RefusedWorkError(f"Expected a model with SHA-256 {job.work.model.digest}, got {digest}")
    return payload


def _reason(error: Exception) -> str:
    return (
        ". ".join(part for part in (error.message, error.hint) if part)
        if isinstance(error, FleetlearnError)
        else f"Expected valid work: {error}"
    )
