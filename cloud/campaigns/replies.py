"""Judges results of work as they come in: accepted, refused, failed, or rejected for what was uploaded."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import structlog

from cloud.blobs.store import BlobStore, CorruptObjectError, UnknownObjectError
from cloud.campaigns.rounds import ANSWERS, Answer, Reply, Round, hear_all
from cloud.campaigns.tries import outcome_of
from cloud.campaigns.updates import Expected, RejectedUpdateError, Update, bytes_max, read_update
from cloud.work.service import WorkOutcome
from shared.api.campaigns import DeviceOutcome
from shared.ids import DeviceId
from shared.messages.events import WorkResult, WorkStatus
from shared.tensors import Array, Tensors

_log = structlog.get_logger()


def _no_model(number: int) -> Tensors:
    raise AssertionError(f"Work of round {number} in a synchronous round.")


def _moved(trained: Array, sent: Array, model: Array) -> Array:
    """What training changed, on top of another model."""
    return (np.asarray(trained, np.float64) - np.asarray(sent, np.float64) + np.asarray(model, np.float64)).astype(
        model.dtype
    )


class Replies:
    """The replies to one try at a round.

    Args:
        blobs: Where uploads are.
        model: What was sent.
        expected: What the campaign's strategy needs of an update.
        number: The round's.
        older: What an earlier round sent; only asynchronous rounds ask for it.
    """

    def __init__(
        self,
        blobs: BlobStore,
        model: Tensors,
        *,
        expected: Expected,
        number: int = 1,
        older: Callable[[int], Tensors] = _no_model,
    ) -> None:
        self._blobs = blobs
        self._model = model
        self._expected = expected
        self._number = number
        self._older = older

    def hear(self, current: Round, work: Mapping[str, WorkOutcome]) -> tuple[Round, dict[DeviceId, DeviceOutcome]]:
        """The round after all results there are, and the outcome of each device that is newly heard."""
        judged: dict[DeviceId, Reply] = {}
        news: dict[DeviceId, DeviceOutcome] = {}
        for one in work.values():
            if one.result is None or current.answers.get(one.device_id) is not Answer.WAITING:
                continue
            reply, reason, update = self._judge(one, one.result)
            judged[one.device_id] = reply
            answer = ANSWERS[Answer.WAITING, reply]
            news[one.device_id] = outcome_of(one.device_id, answer, one.result, reason=reason, update=update)
        return hear_all(current, judged), news

    def update_of(self, one: WorkOutcome) -> Update:
        """The update of finished work; of an earlier round's, what it changed, on top of this round's model.

        Raises RejectedUpdateError.
        """
        assert one.result is not None
        if (staleness := self._number - one.round) <= 0:
            return self.read(one.result, sent=self._model)
        sent = self._older(one.round)
        update = self.read(one.result, sent=sent)
        moved = {name: _moved(value, sent[name], self._model[name]) for name, value in update.tensors.items()}
        return replace(update, tensors=moved, staleness=staleness)

    def read(self, result: WorkResult, *, sent: Tensors) -> Update:
        """The update of a result to this model. Raises RejectedUpdateError."""
        if result.update is None:
            raise RejectedUpdateError("Expected an update with the result, got none")
        if result.update.size_bytes > (largest := bytes_max(self._model, self._expected)):
            raise RejectedUpdateError(f"Expected an update of at most {largest} bytes, got {result.update.size_bytes}")
        try:
            payload = self._blobs.get(result.update.digest)
        except (UnknownObjectError, CorruptObjectError) as error:
            raise RejectedUpdateError(f"Expected an uploaded update: {error.message}") from error
        return read_update(payload, ref=result.update, metrics=result.metrics, sent=sent, expected=self._expected)

    def check(self, one: WorkOutcome) -> Update | None:
        """What was uploaded, where it can be seen. Raises RejectedUpdateError for what cannot be used."""
        return self.update_of(one)

    def _judge(self, one: WorkOutcome, result: WorkResult) -> tuple[Reply, str, Update | None]:
        if result.status is WorkStatus.REFUSED:
            return Reply.REFUSE, "", None
        if result.status is WorkStatus.FAILED:
            return Reply.FAIL, "", None
        try:
            return Reply.UPDATE, "", self.check(one)
        except RejectedUpdateError as error:
            _log.warning("update_rejected", device_id=one.device_id, work_id=result.work_id, reason=error.message)
            return Reply.FAIL, f"Update rejected: {error.message}", None
