"""What a running job tells and asks the database: its progress, and whether it shall stop. Neither too often."""

import math
from collections.abc import Callable
from typing import Any

from cloud.db import SessionFactory
from cloud.jobs.context import JobCancelledError, JobPausedError
from cloud.jobs.service import get_job, report_progress
from shared.lifecycles import JobState

PROGRESS_INTERVAL_S = 0.2
CANCEL_INTERVAL_S = 0.5


class ProgressReporter:
    """Stores progress at most five times a second, since each time waits for the disk, and the end always."""

    def __init__(self, sessions: SessionFactory, job_id: str, *, monotonic: Callable[[], float]) -> None:
        self._sessions = sessions
        self._job_id = job_id
        self._monotonic = monotonic
        self._stored_at = -math.inf
        self._waiting: dict[str, Any] | None = None

    def __call__(self, *, fraction: float, step: str, **figures: Any) -> None:
        """`Any`: JSON."""
        self._waiting = {"fraction": min(max(fraction, 0.0), 1.0), "step": step, **figures}
        if fraction >= 1:
            self._store(self._waiting)
        else:
            self.catch_up()

    def catch_up(self) -> None:
        """Stores what was said too soon after the last time, once that is past."""
        if self._waiting is not None and self._monotonic() - self._stored_at >= PROGRESS_INTERVAL_S:
            self._store(self._waiting)

    def _store(self, progress: dict[str, Any]) -> None:
        self._stored_at, self._waiting = self._monotonic(), None
        with self._sessions() as session, session.begin():
            report_progress(session, self._job_id, progress)


class CancelCheck:
    """Raises JobStoppedError once somebody cancelled or paused the job; asks the database at most twice a second."""

    def __init__(self, sessions: SessionFactory, job_id: str, *, monotonic: Callable[[], float]) -> None:
        self._sessions = sessions
        self._job_id = job_id
        self._monotonic = monotonic
        self._asked_at = -math.inf

    def __call__(self) -> None:
        now = self._monotonic()
        if now - self._asked_at < CANCEL_INTERVAL_S:
            return
        self._asked_at = now
        with self._sessions() as session, session.begin():
            state = get_job(session, self._job_id).state
        if state == JobState.CANCELLED:
            raise JobCancelledError(self._job_id)
        if state != JobState.RUNNING:  # paused, or paused and resumed since: then another process goes on
            raise JobPausedError(self._job_id)
