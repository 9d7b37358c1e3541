"""The light agent's hold on the training process: started with the first work, warm between rounds, gone when idle.

Imports no training library. Whatever happens to the process becomes a WorkResult; work is done one at a time.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from edge_agent.training.bounded_log import BoundedLog
from shared.messages.base import MalformedMessageError
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from shared.privacy import PrivacyLimits

IDLE_S = 60.0
START_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 5.0
_LINE_BYTES_MAX = 1 << 20
_LOG_END_S = 1.0
"""A grandchild may hold the log's pipe open: its end is not waited for longer."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class TrainingSettings:
    """What the training process needs to know of its device."""

    data_dir: Path
    state_dir: Path
    key_file: Path
    """The device's key, which signs the ledger."""
    limits: PrivacyLimits
    """The device owner's."""
    allow_without_privacy: bool = False
    """Whether updates may leave that no noise protects."""
    secure_min: int = 0
    """Above 0, updates leave only in secure sums of at least so many devices."""
    identity_dir: Path | None = None
    """For secure aggregation, which signs; without it such work is refused."""
    flower_apps: Path | None = None
    """Folder of the Flower apps that the owner installed; without one, none runs."""
    node_config: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """What Flower apps are told of this device."""


class TrainingProcess:
    """One training process at most, and never one that nobody waits for longer than `idle_s`.

    Args:
        settings: The device's own.
        idle_s: Seconds without work after which the process is ended.
        environment: Added to this process' environment for the child.
    """

    def __init__(
        self, settings: TrainingSettings, *, idle_s: float = IDLE_S, environment: Mapping[str, str] | None = None
    ) -> None:
        self._settings, self._idle_s = settings, idle_s
        self._environment = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", **(environment or {})}
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle_timer: asyncio.Task[None] | None = None
        self._log: BoundedLog | None = None
        self._logging: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running process' id, or nothing where none runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self, work: Work, *, model_path: Path, update_path: Path) -> WorkResult:
        """What became of the work, within its deadline; cancelling this call kills the training.

        The update is at `update_path` when the status is done; the result's `update` is left for who uploads it.
        """
        started = time.monotonic()
        async with self._lock:
            self._stop_idle_timer()
            job = {"work": work.model_dump(mode="json"), "model_path": str(model_path), "update_path": str(update_path)}
            try:
                async with asyncio.timeout(work.deadline_s):
                    result = await self._exchange(work.work_id, json.dumps(job))
            except TimeoutError:
                await self._kill()
                result = _failed(work.work_id, f"Expected training within {work.deadline_s:g} s, got no result in time")
            except asyncio.CancelledError:
                await self._kill()
                raise
            self._idle_timer = asyncio.create_task(self._end_when_idle())
        return result.model_copy(update={"duration_s": time.monotonic() - started})

    async def close(self) -> None:
        """Ends the process, gently at first; work under way is killed with it."""
        self._stop_idle_timer()
        await self._end()

    async def _exchange(self, work_id: str, line: str) -> WorkResult:
        try:
            process = await self._running()
            assert process.stdin is not None
            process.stdin.write(line.encode() + b"\n")
            await process.stdin.drain()
            answer = await self._answer(process)
            return WorkResult.parse_document(answer["result"])
        except _RefusedError as error:
            await self._kill()
            _log.error("training_refused", work_id=work_id, reason=str(error))
            return WorkResult(work_id=work_id, status=WorkStatus.REFUSED, reason=str(error))
        except (_CrashError, BrokenPipeError, ConnectionResetError, MalformedMessageError) as error:
            await self._kill()
            reason = f"Expected a result from the training process, got {str(error) or type(error).__name__}"
            _log.warning("training_process_failed", work_id=work_id, reason=reason)
            return _failed(work_id, reason)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process and self._process.returncode is None:
            return self._process
        self._settings.state_dir.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES_MAX,
            env={**os.environ, **self._environment},
        )
        assert self._process.stderr is not None
        self._log = BoundedLog(self._settings.state_dir / "training.log")
        self._logging = asyncio.create_task(self._log.copy(self._process.stderr))
        _log.info("training_process_started", pid=self._process.pid)
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._answer(self._process)
        return self._process

    def _command(self) -> list[str]:
        settings = self._settings
        return [
            *(sys.executable, "-m", "edge_agent.training.worker"),
            *("--data", str(settings.data_dir), "--state", str(settings.state_dir)),
            *("--key", str(settings.key_file)),
            *("--epsilon-limit", repr(settings.limits.epsilon_limit), "--delta", repr(settings.limits.delta)),
            *("--device-epsilon-limit", repr(settings.limits.device_epsilon_limit)),
            *(["--allow-without-privacy"] if settings.allow_without_privacy else []),
            *("--secure-min", str(settings.secure_min)),
            *(["--identity", str(settings.identity_dir)] if settings.identity_dir else []),
            *(["--flower-apps", str(settings.flower_apps)] if settings.flower_apps else []),
            *(["--node-config", json.dumps(settings.node_config)] if settings.node_config else []),
        ]

    async def _answer(self, process: asyncio.subprocess.Process) -> dict[str, object]:
        """The process' next line: `ready` or `result`. Raises _CrashError for anything else, its end included."""
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
        except ValueError as error:  # asyncio's word for a line beyond the limit
            raise _CrashError(f"a line of more than {_LINE_BYTES_MAX} bytes") from error
        if not line:
            raise _CrashError(f"its end with status {await process.wait()}: {await self._last_words()}")
        try:
            document: dict[str, object] = json.loads(line)
            if document["type"] == "refused":
                raise _RefusedError(document["reason"])
            if document["type"] == "ready" or "result" in document:
                return document
        except (ValueError, TypeError, KeyError):
            pass
        raise _CrashError(f"the line {line[:200]!r}")

    async def _last_words(self) -> str:
        """The last line the process said about its end."""
        if self._logging is not None:
            await asyncio.wait({self._logging}, timeout=_LOG_END_S)
        return (self._log.last_line if self._log else "") or "it said nothing"

    async def _end_when_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        async with self._lock:
            _log.info("training_process_idle", pid=self.pid)
            await self._end()

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            await self._kill()

    async def _kill(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None


class _RefusedError(Exception):
    """The process said why it will not train on this device."""


class _CrashError(Exception):
    """The process ended, or said what it should not."""


def _failed(work_id: str, reason: str) -> WorkResult:
    return WorkResult(work_id=work_id, status=WorkStatus.FAILED, reason=reason)
