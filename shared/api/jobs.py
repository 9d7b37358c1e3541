"""Jobs: durable work in the cloud, done by worker processes."""

from typing import Any

from pydantic import Field

from shared.api.base import Shape
from shared.lifecycles import JobState


class Job(Shape):
    """A job; `progress` and `result` are typed by its kind."""

    job_id: str
    kind: str
    state: JobState
    progress: dict[str, Any] = Field(default_factory=dict)
    """`Any`: JSON. Always has `fraction` (0..1) and `step` (text) once it runs."""
    result: dict[str, Any] = Field(default_factory=dict)
    error: str = ""
    hint: str = ""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class TrainingCreate(Shape):
    """Trains a task's base model on its public data; the job's result has `model_version_id`."""

    task: str
    seed: int = 0
