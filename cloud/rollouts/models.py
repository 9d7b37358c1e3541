"""Tables of rollouts: the plan and its progress, and what devices said about releases.

A rollout, its waves and its devices are the rows of `RolloutPlan` and `Progress`; `cloud.rollouts.store` turns one into
the other. Of release statuses there is a bounded history, and the newest of each device.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from cloud.db import ROW_NUMBER
from cloud.rollouts.values import DeviceStep
from shared.lifecycles import RolloutState


class RolloutRow(SQLModel, table=True):
    """One rollout; its plan never changes, its state and wave do."""

    __tablename__ = "rollout"

    rollout_id: str = Field(primary_key=True)
    release_id: str = Field(index=True)
    state: str = Field(default=RolloutState.PLANNED, index=True)
    reason: str = Field(default="", sa_type=Text)
    generation: int = Field(sa_type=BigInteger)
    """What its devices are asked with; a resume takes a new one for retries."""
    policy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """`Policy`, by field. `Any`: JSON."""
    left_out: list[list[str]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Pairs of device and reason."""
    wave: int = 0
    """Number of the current wave; 0 before the first step."""
    created_at: float = Field(index=True)
    started_at: float | None = None
    finished_at: float | None = None
    created_by_principal: str
    created_by_role: str


class RolloutWaveRow(SQLModel, table=True):
    """How far one wave is."""

    __tablename__ = "rollout_wave"

    rollout_id: str = Field(primary_key=True, foreign_key="rollout.rollout_id", ondelete="CASCADE")
    number: int = Field(primary_key=True)
    started_at: float | None = None
    clock_from: float | None = None
    finished_at: float | None = None


class RolloutDeviceRow(SQLModel, table=True):
    """How far one device of a rollout is."""

    __tablename__ = "rollout_device"
    __table_args__ = (Index("ix_rollout_device_device", "device_id"),)

    rollout_id: str = Field(primary_key=True, foreign_key="rollout.rollout_id", ondelete="CASCADE")
    device_id: str = Field(primary_key=True)
    position: int
    """In the plan's order."""
    wave: int
    generation: int = Field(sa_type=BigInteger)
    step: str = DeviceStep.WAITING
    asked_at: float | None = None
    is_delivered: bool = False
    judged_from: float = 0
    reason: str = Field(default="", sa_type=Text)


class RolloutGenerationRow(SQLModel, table=True):
    """A generation that was given out: each is used once, whoever asks at the same time."""

    __tablename__ = "rollout_generation"

    generation: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    rollout_id: str


class ReleaseStatusRow(SQLModel, table=True):
    """One release status of a device, as it arrived: history for people, bounded for each device."""

    __tablename__ = "release_status"
    __table_args__ = (
        UniqueConstraint("device_id", "event_id"),
        Index("ix_release_status_device", "device_id", "status_id"),
    )

    status_id: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    """Order of arrival."""
    device_id: str
    event_id: str
    boot_id: str
    sequence: int = Field(sa_type=BigInteger)
    received_at: float
    release_id: str
    generation: int = Field(sa_type=BigInteger)
    state: str
    error: str = Field(default="", sa_type=Text)
    active_release_id: str | None = None
    self_test_ms: float | None = None


class DeviceReleaseRow(SQLModel, table=True):
    """The newest release status of a device, by its own order: what gates judge."""

    __tablename__ = "device_release"

    device_id: str = Field(primary_key=True)
    boot_id: str
    sequence: int = Field(sa_type=BigInteger)
    release_id: str = Field(index=True)
    generation: int = Field(sa_type=BigInteger)
    state: str
    error: str = Field(default="", sa_type=Text)
    active_release_id: str | None = None
    state_since: float
    """When this state of this generation was first received."""
