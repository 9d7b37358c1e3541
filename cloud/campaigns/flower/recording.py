"""A campaign's events on disk: what its ServerApp was shown and what it sent, each before it goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from sqlmodel import Session, col, select

from cloud.campaigns.flower.models import FlowerEvent
from cloud.campaigns.flower.tape import Asked, Event, EventKind, Nodes, Received, Sent
from cloud.db import SessionFactory

_KINDS: Mapping[type[Event], EventKind] = {Nodes: EventKind.NODES, Sent: EventKind.SENT, Received: EventKind.RECEIVED}


class Recording:
    """The events of one campaign. One process writes them at a time.

    Args:
        sessions: Where they are kept.
        campaign_id: Which campaign.
        now: Seconds since the epoch.
    """

    def __init__(self, sessions: SessionFactory, campaign_id: str, *, now: Callable[[], float]) -> None:
        self._sessions, self._campaign_id, self._now = sessions, campaign_id, now
        with sessions() as session, session.begin():
            self.events = [_event(row) for row in _rows(session, campaign_id)]
            """Those there were when this process began."""
        self.count = len(self.events)

    def add(self, session: Session, event: Event, *, round_: int) -> None:
        """Within the caller's transaction, so that what the event says is stored with it."""
        session.add(
            FlowerEvent(
                campaign_id=self._campaign_id,
                number=self.count,
                kind=_KINDS[type(event)],
                round=round_,
                content=asdict(event),
                at=self._now(),
            )
        )
        self.count += 1

    def store(self, event: Event, *, round_: int = 0) -> None:
        """In a transaction of its own."""
        with self._sessions() as session, session.begin():
            self.add(session, event, round_=round_)


def _rows(session: Session, campaign_id: str) -> Sequence[FlowerEvent]:
    query = select(FlowerEvent).where(FlowerEvent.campaign_id == campaign_id)
    return session.exec(query.order_by(col(FlowerEvent.number))).all()


def _event(row: FlowerEvent) -> Event:
    content = row.content
    match EventKind(row.kind):
        case EventKind.NODES:
            return Nodes(tuple(content["devices"]))
        case EventKind.RECEIVED:
            return Received(tuple(content["work_ids"]))
        case EventKind.SENT:
            return Sent(tuple(Asked(**each) for each in content["messages"]), tuple(content["work_ids"]))
