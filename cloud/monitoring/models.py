"""Tables of monitoring: windows of serving, and alerts."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from cloud.db import ROW_NUMBER


class ServingWindowRow(SQLModel, table=True):
    """One serving report as it was received; the controller forgets old ones."""

    __tablename__ = "serving_window"
    __table_args__ = (
        UniqueConstraint("device_id", "event_id"),
        Index("ix_serving_window_device", "device_id", "window_id"),
        Index("ix_serving_window_release", "release_id", "received_at"),
    )

    window_id: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    """Order of arrival."""
    device_id: str
    event_id: str
    boot_id: str
    sequence: int = Field(sa_type=BigInteger)
    is_straggler: bool = False
    """It arrived after a newer one, and decided nothing."""
    received_at: float = Field(index=True)
    release_id: str
    window_s: float
    requests: int = Field(sa_type=BigInteger)
    examples: int = Field(sa_type=BigInteger)
    errors: int = Field(sa_type=BigInteger)
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    drift: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """Feature to `[psi, threshold]`; empty until the device had enough examples. `Any`: JSON."""
    drift_examples: int = Field(default=0, sa_type=BigInteger)


class AlertRow(SQLModel, table=True):
    """One finding; at most one is open for each kind, device and subject."""

    __tablename__ = "alert"
    __table_args__ = (
        Index(
            "uq_alert_open",
            "kind",
            "device_id",
            "subject",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
    )

    alert_id: str = Field(primary_key=True)
    kind: str
    severity: str
    device_id: str
    subject: str = ""
    message: str = Field(sa_type=Text)
    value: float | None = None
    threshold: float | None = None
    opened_at: float = Field(index=True)
    last_seen_at: float
    closed_at: float | None = Field(default=None, index=True)
    count: int = Field(default=1, sa_type=BigInteger)
    closed_by_principal: str = ""
    """Empty when it cleared by itself."""
    closed_by_role: str = ""


class DriftReferenceRow(SQLModel, table=True):
    """What of a release's drift profile judging needs; stored before any device is asked to serve the release."""

    __tablename__ = "drift_reference"

    release_id: str = Field(primary_key=True)
    thresholds: dict[str, float] = Field(sa_column=Column(JSON, nullable=False))
    """By feature, in the profile's order."""
    examples_min: int = Field(sa_type=BigInteger)
