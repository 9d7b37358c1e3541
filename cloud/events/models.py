"""What the consumer remembers: how far it read, which events it saw, and those it refused."""

from sqlalchemy import BigInteger, Column
from sqlmodel import Field, SQLModel


class EventOffset(SQLModel, table=True):
    """How far the hub's event log was read; moved in the transaction that applied the events."""

    __tablename__ = "event_offset"

    consumer: str = Field(primary_key=True)
    offset: int = Field(sa_type=BigInteger)


class SeenEvent(SQLModel, table=True):
    """An event that was applied; a repetition of it within a day is not applied again."""

    __tablename__ = "seen_event"

    device_id: str = Field(primary_key=True)
    event_id: str = Field(primary_key=True)
    seen_at: float = Field(index=True)


class RejectedEvent(SQLModel, table=True):
    """An event that was refused, kept for people to look at; the newest few are."""

    __tablename__ = "rejected_event"

    offset: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    device_id: str = Field(index=True)
    received_at: float
    reason: str
    payload: bytes
    """Its first bytes."""
