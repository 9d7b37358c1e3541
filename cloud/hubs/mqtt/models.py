"""What a plain broker does not keep, in the coordinator's database: each device's documents, and the log of events."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column
from sqlmodel import Field, SQLModel


class MqttDeviceRow(SQLModel, table=True):
    """A device that may use the broker, with its documents. `Any`: JSON."""

    __tablename__ = "mqtt_device"

    device_id: str = Field(primary_key=True)
    desired: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    desired_version: int = Field(default=1, sa_type=BigInteger)
    reported: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    reported_version: int = Field(default=1, sa_type=BigInteger)
    session: str = ""
    """Of its connection, by its own word; empty: it said goodbye, or its last will did."""
    is_told: bool = Field(default=True, index=True)
    """Whether the broker took the newest patch; one that it did not take is made up for after the next connect."""


class MqttEventRow(SQLModel, table=True):
    """An event, in the order in which they were stored; transactions follow each other, so offsets have no gaps."""

    __tablename__ = "mqtt_event"

    offset: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    device_id: str
    enqueued_at: float
    payload: bytes
