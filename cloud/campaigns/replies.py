"""Judges results of work as they come in: accepted, refused, failed, or rejected for what was uploaded."""

from collections.abc import Mapping

import structlog

from cloud.blobs.store import BlobStore, CorruptObjectError, UnknownObjectError
from cloud.campaigns.rounds import Answer, Reply, Round, hear
from cloud.campaigns.tries import outcome_of
from cloud.campaigns.updates import Expected, RejectedUpdateError, Update, bytes_max, read_update
from cloud.work.service import WorkOutcome
from shared.api.campaigns import DeviceOutcome
from shared.ids import DeviceId
from shared.messages.events import WorkResult, WorkStatus
from shared.tensors import Tensors

_log = structlog.get_logger()


class Replies:
    """The replies to one try at a round.

    Args:
        blobs: Where uploads are.
        model: What was sent.
        expected: What the campaign's strategy needs of an update.
    """

    def __init__(self, blobs: BlobStore, model: Tensors, *, expected: Expected) -> None:
        self._blobs = blobs
        self._model = model
        self._expected = expected

    def hear(self, current: Round, work: Mapping[str, WorkOutcome]) -> tuple[Round, dict[DeviceId, DeviceOutcome]]:
        """The round after all results there are, and the outcome of each device that is newly heard."""
        news: dict[DeviceId, DeviceOutcome] = {}
        for one in work.values():
            if one.result is None or current.answers.get(one.device_id) is not Answer.WAITING:
                continue
            reply, reason, update = self._judge(one.device_id, one.result)
            current = hear(current, one.device_id, reply)
            news[one.device_id] = outcome_of(
                one.device_id, current.answers[one.device_id], one.result, reason=reason, update=update
            )
        return current, news

    def read(self, result: WorkResult) -> Update:
        """The update of a result. Raises RejectedUpdateError."""
        if result.update is None:
            raise RejectedUpdateError("Expected an update with the result, got none")
        if result.update.size_bytes > (largest := bytes_max(self._model, self._expected)):
            raise RejectedUpdateError(f"Expected an update of at most {largest} bytes, got {result.update.size_bytes}")
        try:
            payload = self._blobs.get(result.update.digest)
        except (UnknownObjectError, CorruptObjectError) as error:
            raise RejectedUpdateError(f"Expected an uploaded update: {error.message}") from error
        return read_update(
            payload, ref=result.update, metrics=result.metrics, sent=self._model, expected=self._expected
        )

    def check(self, device_id: DeviceId, result: WorkResult) -> Update | None:
        """What was uploaded, where it can be seen. Raises RejectedUpdateError for what cannot be used."""
        return self.read(result)

    def _judge(self, device_id: DeviceId, result: WorkResult) -> tuple[Reply, str, Update | None]:
        if result.status is WorkStatus.REFUSED:
            return Reply.REFUSE, "", None
        if result.status is WorkStatus.FAILED:
            return Reply.FAIL, "", None
        try:
            return Reply.UPDATE, "", self.check(device_id, result)
        except RejectedUpdateError as error:
            _log.warning("update_rejected", device_id=device_id, work_id=result.work_id, reason=error.message)
            return Reply.FAIL, f"Update rejected: {error.message}", None
