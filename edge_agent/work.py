"""One piece of work from instruction to result: fetch the model, train or evaluate, send the update and the result."""

import asyncio
import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from edge_agent.coordinator_client import CoordinatorClient
from edge_agent.errors import CoordinatorError, CoordinatorUnavailableError, DeviceRevokedError
from edge_agent.models import Models
from edge_agent.threads import in_thread
from shared.backoff import Backoff
from shared.ids import Digest
from shared.messages.attached import ATTACHED_BYTES_MAX
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work, WorkKind, WorkList

FOLDERS_KEPT = 4
"""Folders of interrupted work that survive a restart, the newest; their downloads go on where they were."""
REASON_CHARS_MAX = 1000
_BACKOFF = Backoff(base_s=0.5, cap_s=15)
_log = structlog.get_logger()
_T = TypeVar("_T")


class Trainer(Protocol):
    """What does the work itself: `edge_agent.training.process.TrainingProcess`."""

    async def run(self, work: Work, *, model_path: Path, update_path: Path) -> WorkResult: ...


class Gate(Protocol):
    """What the owner allows: `edge_agent.surroundings.TrainingGate`."""

    def refusal(self, work_id: str) -> str: ...


@dataclass(frozen=True)
class WorkEnd:
    """What became of work."""

    result: WorkResult
    is_handed_in: bool = False
    """Whether the coordinator has the result on disk; otherwise it goes as an event, as often as needed."""


class WorkRunner:
    """Does work, one piece at a time.

    Args:
        folder: One folder below it for each piece of work under way.
        models: Fetches models.
        client: Sends updates.
        trainer: Does the work; None on a device without data.
        gate: Says why training may not begin now.
        rng: For the jitter of retries.
    """

    def __init__(
        self,
        folder: Path,
        *,
        models: Models,
        client: CoordinatorClient,
        trainer: Trainer | None,
        gate: Gate,
        rng: random.Random,
    ) -> None:
        self._folder = folder
        self._models = models
        self._client = client
        self._trainer = trainer
        self._gate = gate
        self._rng = rng

    def fetch(self) -> WorkList:
        """All work that waits for this device; blocks. Raises CoordinatorError."""
        found, content = self._client.work(base=self._models.base)
        if found.attached is not None:
            self._models.offer(found.attached, content)
        return found

    async def run(self, work: Work) -> WorkEnd:
        """What became of the work; never later than its deadline. Raises DeviceRevokedError and nothing else."""
        log = _log.bind(work_id=work.work_id, kind=work.kind.value, campaign_id=work.campaign_id, round=work.round)
        log.info("work_started")
        try:
            async with asyncio.timeout(work.deadline_s):
                end = await self._run(work)
        except TimeoutError:
            end = _failed(work, f"Expected an end within {work.deadline_s:g} s, got none")
        except DeviceRevokedError:
            raise
        except CoordinatorError as error:
            end = _failed(work, error.message)
        except OSError as error:
            end = _failed(work, f"Expected to store the work on this device: {error.strerror or error}")
        log.info("work_ended", status=end.result.status.value, reason=end.result.reason, handed_in=end.is_handed_in)
        return end

    def forget(self, work: Work) -> None:
        """Removes the files of work whose result is in the outbox."""
        shutil.rmtree(self._of(work), ignore_errors=True)

    def sweep(self) -> None:
        """Removes what interrupted work left behind, apart from the newest few."""
        folders = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for folder in folders[:-FOLDERS_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)

    async def _run(self, work: Work) -> WorkEnd:
        if self._trainer is None:
            reason = "Expected a data folder on this device, got none: run the agent with --data DIR"
            return WorkEnd(WorkResult(work_id=work.work_id, status=WorkStatus.REFUSED, reason=reason))
        if work.kind in (WorkKind.TRAIN, WorkKind.ANALYZE) and (reason := self._gate.refusal(work.work_id)):
            return WorkEnd(WorkResult(work_id=work.work_id, status=WorkStatus.REFUSED, reason=reason))
        folder = self._of(work)
        folder.mkdir(parents=True, exist_ok=True)
        model_path, update_path = folder / "model.safetensors", folder / "update.safetensors"
        model_bytes = await self._tried(lambda: self._fetch(work, model_path))
        result = await self._trainer.run(work, model_path=model_path, update_path=update_path)
        reason = result.reason[:REASON_CHARS_MAX]
        result = result.model_copy(update={"model_bytes": model_bytes, "reason": reason})
        if result.status is not WorkStatus.DONE or not update_path.exists():
            return WorkEnd(result)
        return await self._send(result, update_path)

    async def _send(self, result: WorkResult, update_path: Path) -> WorkEnd:
        """The update goes with its result where it is small, and otherwise before it, in parts that can be resumed."""
        if (content := await asyncio.to_thread(_small, update_path)) is not None:
            digest = Digest(hashlib.sha256(content).hexdigest())
            named = result.model_copy(update={"update": ObjectRef(digest=digest, size_bytes=len(content))})
            if await self._is_taken(named, content):
                return WorkEnd(named, is_handed_in=True)
        update = await self._tried(lambda: self._client.upload(update_path))
        named = result.model_copy(update={"update": update})
        return WorkEnd(named, is_handed_in=await self._is_taken(named))

    async def _is_taken(self, result: WorkResult, content: bytes = b"") -> bool:
        """Whether the coordinator has the result on disk now; one that is away, or older, gets it as an event."""
        try:
            await in_thread(lambda: self._client.hand_in(result, content), name="work-result")
        except DeviceRevokedError:
            raise
        except CoordinatorError as error:
            _log.info("result_not_handed_in", work_id=result.work_id, reason=error.message)
            return False
        return True

    def _fetch(self, work: Work, path: Path) -> int:
        if work.kind in (WorkKind.TRAIN, WorkKind.EVALUATE):
            return self._models.fetch(work.model, path)
        # No model: the newest model stays the base of the next one's difference.
        self._client.download(work.model, path)
        return work.model.size_bytes

    async def _tried(self, call: Callable[[], _T]) -> _T:
        """The call's result, tried again while the coordinator is away; the work's deadline is the bound."""
        attempt = 0
        while True:
            try:
                return await in_thread(call, name="work-transfer")
            except CoordinatorUnavailableError:
                await asyncio.sleep(_BACKOFF.delay_s(attempt, self._rng))
                attempt += 1

    def _of(self, work: Work) -> Path:
        # The id comes from outside: as a file name it is only ever used hashed.
        return self._folder / hashlib.sha256(work.work_id.encode()).hexdigest()[:32]


def _failed(work: Work, reason: str) -> WorkEnd:
    reason = reason[:REASON_CHARS_MAX]
    return WorkEnd(WorkResult(work_id=work.work_id, status=WorkStatus.FAILED, reason=reason))


def _small(path: Path) -> bytes | None:
    """What the file holds, where that is little enough to go with a message."""
    return path.read_bytes() if path.stat().st_size <= ATTACHED_BYTES_MAX else None
