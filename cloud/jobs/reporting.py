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
    """Stores progress at most five times a second, a new step and the end always."""

    def __init__(self, sessions: SessionFactory, job_id: str, *, monotonic: Callable[[], float]) -> None:
        self._sessions = sessions
        self._job_id = job_id
        self._monotonic = monotonic
        self._last = (-math.inf, "")

    def __call__(self, *, fraction: float, step: str, **figures: Any) -> None:
        """`Any`: JSON."""
        now = self._monotonic()
        stored_at, stored_step = self._last
        if now - stored_at < PROGRESS_INTERVAL_S and step == stored_step and fraction < 1:
            return
        self._last = (now, step)
        progress = {"fraction": min(max(fraction, 0.0), 1.0), "step": step, **figures}
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
