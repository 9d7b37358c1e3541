"""What a job's function gets from the worker process that runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cloud.blobs.store import BlobStore
from cloud.db import SessionFactory
from shared.hub.port import FleetHub

JsonObject = Mapping[str, Any]
"""`Any`: JSON, typed by the job's own models."""


class JobCancelledError(Exception):
    """Raised out of `check_cancelled`; the worker turns it into the state `cancelled`."""


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
    """Raises JobCancelledError once somebody cancelled the job; call it at least once a second in long loops."""
    now: Callable[[], float]


JobFunction = Callable[[JobContext, JsonObject], JsonObject]
"""(context, spec) -> result. Errors of ours become the job's `error` and `hint`."""
