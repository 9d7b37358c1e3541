"""What a job's function gets from the worker process that runs it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cloud.blobs.store import BlobStore
from cloud.db import SessionFactory
from shared.hub.port import FleetHub

JsonObject = Mapping[str, Any]
"""`Any`: JSON, typed by the job's own models."""


class JobStoppedError(Exception):
    """Raised out of `check_cancelled`: an operator decided, the row says what; the process ends."""


class JobCancelledError(JobStoppedError):
    """The job is over: whatever it has open may be taken back."""


class JobPausedError(JobStoppedError):
    """The job goes on later: whatever it has open stays open."""


class ReportProgress(Protocol):
    def __call__(self, *, fraction: float, step: str, **figures: Any) -> None:
        """Stores how far the job is (0..1), what it does now, and its figures so far, for people who watch."""
        ...


@dataclass(frozen=True)
class JobContext:
    """Everything outside that a job may touch. A job resumes from what it stored itself: it may be run again."""

    job_id: str
    sessions: SessionFactory
    blobs: BlobStore
    work_dir: Path
    """The job's own folder, kept between its runs: checkpoints go here."""
    open_hub: Callable[[], FleetHub]
    """A new connection to the hub; the job closes it."""
    report_progress: ReportProgress
    check_cancelled: Callable[[], None]
    """Raises JobStoppedError once somebody cancelled or paused the job; call it at least once a second."""
    now: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep
    """Waits some seconds, or less when devices have answered."""
    flower_apps: Path | None = None
    """Folder of the Flower apps whose ServerApps may run here."""


JobFunction = Callable[[JobContext, JsonObject], JsonObject]
"""(context, spec) -> result. Errors of ours become the job's `error` and `hint`."""
