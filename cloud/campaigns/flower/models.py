"""The table of what a Flower app saw and did: enough to run its ServerApp again and show it the same."""

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class FlowerEvent(SQLModel, table=True):
    """One step between a ServerApp and the fleet, in the order in which they were."""

    __tablename__ = "flower_event"

    campaign_id: str = Field(primary_key=True, foreign_key="campaign.campaign_id")
    number: int = Field(primary_key=True)
    """From 0."""
    kind: str
    """`cloud.campaigns.flower.tape.EventKind`."""
    round: int = 0
    """The app's own, as far as its messages say."""
    content: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """The fields of the event's value in `cloud.campaigns.flower.tape`. `Any`: JSON."""
    at: float
