"""The table of work for devices: durable rows, each rung for by a doorbell and fetched over HTTPS."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Column, Index, String
from sqlmodel import Field, SQLModel


class WorkState(StrEnum):
    PENDING = "pending"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    """The round no longer waits; a result that still comes is kept, the state stays."""


class WorkItem(SQLModel, table=True):
    """One instruction for one device, and what became of it."""

    __tablename__ = "work_item"
    __table_args__ = (Index("ix_work_item_campaign_id_round", "campaign_id", "round"),)

    work_id: str = Field(primary_key=True)
    device_id: str = Field(index=True)
    campaign_id: str
    round: int
    model_digest: str = Field(index=True)
    """The model's object, which this device may read because of this row."""
    instruction: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """`Any`: JSON of `shared.messages.work.Work`."""
    state: WorkState = Field(default=WorkState.PENDING, sa_type=String, index=True)
    result: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """`Any`: JSON of `shared.messages.events.WorkResult`."""
    created_at: float
    fetched_at: float | None = None
    finished_at: float | None = None
