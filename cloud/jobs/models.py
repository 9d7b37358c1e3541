"""The table of jobs: durable work in the cloud, done by worker processes."""

from typing import Any

from sqlalchemy import JSON, Column, String
from sqlmodel import Field, SQLModel

from shared.lifecycles import JobState


class JobRecord(SQLModel, table=True):
    """One job and what became of it."""

    __tablename__ = "job"

    job_id: str = Field(primary_key=True)
    kind: str = Field(index=True)
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """`Any`: JSON, typed by the kind."""
    state: JobState = Field(default=JobState.QUEUED, sa_type=String, index=True)
    progress: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    result: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    error: str = ""
    hint: str = ""
    restarts: int = 0
    """How often its process died under it."""
    not_before: float | None = None
    """When it may start at the earliest, in seconds since the epoch."""
    created_at: float = Field(index=True)
    created_by_principal: str
    created_by_role: str
    started_at: float | None = None
    finished_at: float | None = None
