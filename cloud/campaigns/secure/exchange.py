"""From advertisements to a sum: four steps of durable work, which a restarted coordinator goes on with.

A step's work is stored for all its devices together. Whoever has work of the next step is whose answers to this one
counted: what was decided when a step closed is never decided again, whatever comes late. So a killed coordinator asks
nobody anything else than before, and devices, which refuse that, do not refuse.

The functions are `shared.secagg.server`'s; nothing here sees an update.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from cloud.blobs.store import BlobStore, CorruptObjectError, UnknownObjectError
from cloud.campaigns.errors import AggregationFailedError
from cloud.campaigns.journal import Journal
from cloud.campaigns.models import RoundRow
from cloud.campaigns.tries import step_work_id
from cloud.campaigns.updates import RejectedUpdateError
from cloud.work.service import WorkOutcome
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import SecureStep, SecureWork, Work, WorkKind
from shared.secagg.errors import SecureAggregationError
from shared.secagg.fixed_point import FixedPoint, Words
from shared.secagg.messages import Advertisement, Agreement, Agreements, SealedShares, Survivors, Unmasking
from shared.secagg.noise import format_of
from shared.secagg.server import inbox_of, roster_of, unmasked

MESSAGE_BYTES_MAX = 16 * 2**20
"""Of one answer other than masked words: sealed shares for a hundred thousand neighbours."""
_log = structlog.get_logger()
_T = TypeVar("_T")
_PlacedT = TypeVar("_PlacedT", SealedShares, Agreement, Unmasking)
_MessageT = TypeVar("_MessageT", bound=BaseModel)


@dataclass(frozen=True)
class SecureExchange:
    """One try's way from advertisements to the sum.

    Args:
        journal: The campaign's.
        blobs: Messages both ways.
        row: The try.
        trained: The work of its training, by device: later steps repeat what it says of the round.
        ring: Rings devices' doorbells.
        wait: Waits a moment for a step's answers; raises when an operator stopped the job.
        now: Seconds since the epoch.
    """

    journal: Journal
    blobs: BlobStore
    row: RoundRow
    trained: Mapping[DeviceId, Work]
    ring: Callable[[Iterable[DeviceId]], None]
    wait: Callable[[str], None]
    now: Callable[[], float]

    def total(self, advertised: Mapping[DeviceId, Advertisement]) -> tuple[NDArray[np.float64], int]:
        """The sum of what survivors sent, `(parameters,)`, and how many they are. Raises AggregationFailedError."""
        try:
            total, clients = self._sum(advertised)
        except (SecureAggregationError, RejectedUpdateError) as error:
            self.journal.take_back(self.row)
            raise AggregationFailedError(error.message, hint=error.hint) from error
        self.journal.take_back(self.row)
        return self._format.decode(total), clients

    @property
    def _format(self) -> FixedPoint:
        secure = self._secure
        if secure.terms.noise is not None:
            return format_of(secure.terms.noise, clients_max=secure.clients_max)
        return FixedPoint(secure.clients_max, secure.value_max)

    @property
    def _secure(self) -> SecureWork:
        secure = next(iter(self.trained.values())).secure
        assert secure is not None
        return secure

    def _sum(self, advertised: Mapping[DeviceId, Advertisement]) -> tuple[Words, int]:
        """The survivors' sum, and how many they are."""
        roster = roster_of(advertised.values())
        place = {DeviceId(each.device): position for position, each in enumerate(roster.advertisements)}
        sealed = self._step(
            SecureStep.SHARE,
            dict.fromkeys(place, roster),
            lambda device, result: self._placed(SealedShares, place[device], result),
        )
        shared = {place[device]: each for device, each in sealed.items()}
        masked = self._step(
            SecureStep.MASK,
            {device: inbox_of(place[device], shared) for device in sealed},
            lambda _, result: self._checked_words(result),
        )
        survivors = Survivors(positions=tuple(sorted(place[device] for device in masked)))
        agreed = self._step(
            SecureStep.AGREE,
            dict.fromkeys(masked, survivors),
            lambda device, result: self._placed(Agreement, place[device], result),
        )
        agreements = Agreements(agreements=tuple(agreed[device] for device in sorted(agreed)))
        released = self._step(
            SecureStep.RELEASE,
            dict.fromkeys(agreed, agreements),
            lambda device, result: self._placed(Unmasking, place[device], result),
        )
        total = unmasked(
            self._total(masked[device] for device in sorted(masked)),
            terms=self._secure.terms,
            roster=roster,
            shared=shared,
            survivors=survivors,
            unmaskings=[released[device] for device in sorted(released)],
        )
        return total, len(masked)

    def _step(
        self,
        step: SecureStep,
        messages: Mapping[DeviceId, BaseModel],
        read: Callable[[DeviceId, WorkResult], _T],
    ) -> dict[DeviceId, _T]:
        """Each device's answer to its message, of those who answered in time and rightly."""
        if len(messages) < self._secure.terms.clients_min:
            raise SecureAggregationError(
                f"Expected at least {self._secure.terms.clients_min} devices to {step.value}, got {len(messages)}",
                hint="`fleetlearn campaigns show` says what each device did.",
            )
        if not self._asked(step, messages):
            self.journal.ask_step(self.row, {device: self._work(step, device, messages[device]) for device in messages})
        if decided := self._asked(_next(step), messages):
            return dict(self._answers(step, decided, read))
        return self._wait_for(step, messages, read)

    def _wait_for(
        self, step: SecureStep, devices: Iterable[DeviceId], read: Callable[[DeviceId, WorkResult], _T]
    ) -> dict[DeviceId, _T]:
        asked = self._asked(step, devices)
        deadline_at = self.now() + next(iter(self.trained.values())).deadline_s
        self.ring(device for device, outcome in asked.items() if outcome.result is None)
        while any(outcome.result is None for outcome in asked.values()) and self.now() < deadline_at:
            answered = sum(outcome.result is not None for outcome in asked.values())
            self.wait(f"{step.value}: {answered} of {len(asked)} devices answered")
            asked = self._asked(step, devices)
        return dict(self._answers(step, asked, read))

    def _answers(
        self, step: SecureStep, devices: Iterable[DeviceId], read: Callable[[DeviceId, WorkResult], _T]
    ) -> Iterable[tuple[DeviceId, _T]]:
        for device, outcome in self._asked(step, devices).items():
            if outcome.result is None:
                continue
            try:
                yield device, read(device, outcome.result)
            except RejectedUpdateError as error:
                reason = outcome.result.reason or error.message
                _log.warning("secure_answer_rejected", device_id=device, step=step.value, reason=reason)

    def _asked(self, step: SecureStep | None, devices: Iterable[DeviceId]) -> dict[DeviceId, WorkOutcome]:
        """The work of this step that is stored, by device."""
        if step is None:
            return {}
        ids = {self._id(step, device): device for device in devices}
        return {ids[one.work_id]: one for one in self.journal.steps_of(self.row) if one.work_id in ids}

    def _work(self, step: SecureStep, device: DeviceId, message: BaseModel) -> Work:
        trained = self.trained[device]
        assert trained.secure is not None
        return trained.model_copy(
            update={
                "work_id": self._id(step, device),
                "kind": WorkKind.AGGREGATE,
                "model": self.blobs.put(message.model_dump_json().encode()),
                "config": {},
                "privacy": None,
                "secure": trained.secure.model_copy(update={"step": step}),
            }
        )

    def _id(self, step: SecureStep, device: DeviceId) -> str:
        return step_work_id(self.row.work_ids[device], step)

    def _placed(self, kind: type[_PlacedT], position: int, result: WorkResult) -> _PlacedT:
        found = read_message(self.blobs, kind, result)
        if found.position != position:
            raise RejectedUpdateError(f"Expected position {position}, got {found.position}")
        return found

    def _checked_words(self, result: WorkResult) -> ObjectRef:
        ref = _uploaded(result)
        if ref.size_bytes != (expected := 4 * self._secure.terms.parameters):
            raise RejectedUpdateError(f"Expected {expected} bytes of masked words, got {ref.size_bytes}")
        if not self.blobs.exists(ref.digest):
            raise RejectedUpdateError("Expected uploaded words, got none")
        return ref

    def _total(self, refs: Iterable[ObjectRef]) -> Words:
        """The sum of the masked words, modulo 2**32, one vector in memory at a time."""
        total = np.zeros(self._secure.terms.parameters, np.uint32)
        for ref in refs:
            total += np.frombuffer(self.blobs.get(ref.digest), "<u4")
        return total


def read_message(blobs: BlobStore, kind: type[_MessageT], result: WorkResult) -> _MessageT:
    """What a device uploaded, parsed. Raises RejectedUpdateError."""
    ref = _uploaded(result)
    if ref.size_bytes > MESSAGE_BYTES_MAX:
        raise RejectedUpdateError(f"Expected at most {MESSAGE_BYTES_MAX} bytes, got {ref.size_bytes}")
    try:
        return kind.model_validate_json(blobs.get(ref.digest))
    except (UnknownObjectError, CorruptObjectError) as error:
        raise RejectedUpdateError(f"Expected an uploaded message: {error.message}") from error
    except ValidationError as error:
        raise RejectedUpdateError(f"Expected a message of kind {kind.__name__}, got other bytes") from error


def _uploaded(result: WorkResult) -> ObjectRef:
    if result.status is not WorkStatus.DONE or result.update is None:
        raise RejectedUpdateError(result.reason or "Expected an answer, got none")
    return result.update


def _next(step: SecureStep) -> SecureStep | None:
    steps = list(SecureStep)
    return steps[steps.index(step) + 1] if step is not SecureStep.RELEASE else None
