"""Events are applied once, in one transaction with the offset; what is malformed is counted and holds up nobody."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlmodel import Session, SQLModel, select

from cloud.devices.events import HANDLERS
from cloud.devices.models import DeviceRecord
from cloud.domains import event_handlers, raise_malformed_alert
from cloud.events.batch import Outcome, apply_events, read_offset
from cloud.events.consumer import EventConsumer
from cloud.events.models import RejectedEvent
from shared.hub.port import Event, HubUnavailableError
from shared.ids import DeviceId
from shared.messages.events import Envelope, EventKind, Heartbeat
from tests.support.coordinator import TestCoordinator, open_coordinator

DEVICE = DeviceId("press-07")


def device_row() -> DeviceRecord:
    return DeviceRecord(
        device_id=DEVICE,
        enrolled_at=0,
        created_by_principal="operator",
        created_by_role="admin",
        public_key_pem="",
        certificate_pem="",
        certificate_expires_at=0,
    )


@pytest.fixture
def coordinator(tmp_path: Path, database_url: str) -> Iterator[TestCoordinator]:
    coordinator = open_coordinator(tmp_path, database_url=database_url)
    with coordinator.services.sessions() as session, session.begin():
        session.add(device_row())
    yield coordinator
    coordinator.engine.dispose()


def heartbeat(
    sequence: int, *, event_id: str = "", boot: str = "b1", version: str = "0.1", name: str = DEVICE
) -> bytes:
    envelope = Envelope(
        kind=EventKind.HEARTBEAT,
        id=event_id or f"e-{boot}-{sequence}",
        device_id=name,
        boot_id=boot,
        sequence=sequence,
        body=Heartbeat(agent_version=version).model_dump(mode="json"),
    )
    return envelope.encode()


def event(offset: int, payload: bytes) -> Event:
    return Event(DEVICE, offset, 0.0, payload)


def apply(coordinator: TestCoordinator, *events: Event) -> Outcome:
    with coordinator.services.sessions() as session, session.begin():
        return apply_events(
            session, events, event_handlers(), on_rejected=raise_malformed_alert, now=coordinator.clock()
        )


def device(coordinator: TestCoordinator) -> DeviceRecord:
    with coordinator.services.sessions() as session, session.begin():
        return session.get_one(DeviceRecord, DEVICE)


def test_a_heartbeat_shows_in_the_device(coordinator: TestCoordinator) -> None:
    assert apply(coordinator, event(1, heartbeat(1, version="0.2"))) == Outcome(applied=1)
    assert (device(coordinator).agent_version, device(coordinator).last_seen_at) == ("0.2", coordinator.clock())


def test_an_event_that_comes_twice_is_applied_once(coordinator: TestCoordinator) -> None:
    first = heartbeat(1)
    assert apply(coordinator, event(1, first), event(2, first)) == Outcome(applied=1, repeated=1)
    assert apply(coordinator, event(3, first)) == Outcome(repeated=1)


def test_an_offset_that_was_read_is_not_read_again(coordinator: TestCoordinator) -> None:
    apply(coordinator, event(5, heartbeat(1)))
    assert apply(coordinator, event(5, heartbeat(2)), event(4, heartbeat(3))) == Outcome()


def test_an_older_heartbeat_does_not_undo_a_newer_one(coordinator: TestCoordinator) -> None:
    apply(coordinator, event(1, heartbeat(2, version="new")), event(2, heartbeat(1, version="old")))
    apply(coordinator, event(3, heartbeat(1, boot="b2", version="newest")), event(4, heartbeat(3, version="old")))
    assert device(coordinator).agent_version == "newest"


def test_an_event_that_names_another_device_is_rejected_and_counted(coordinator: TestCoordinator) -> None:
    assert apply(coordinator, event(1, heartbeat(1, name="press-08"))) == Outcome(rejected=1)
    assert device(coordinator).events_rejected == 1


def test_malformed_events_are_counted_kept_and_hold_up_nobody(coordinator: TestCoordinator) -> None:
    bad = heartbeat(2).replace(b'"agent_version":"0.1"', b'"agent_version":7')
    outcome = apply(coordinator, event(1, b"\xff"), event(2, bad), event(3, heartbeat(3)))
    assert outcome == Outcome(applied=1, rejected=2)
    assert device(coordinator).events_rejected == 2
    with coordinator.services.sessions() as session, session.begin():
        assert [row.payload for row in session.exec(select(RejectedEvent))] == [b"\xff", bad]


def test_an_unknown_kind_is_no_error(coordinator: TestCoordinator) -> None:
    assert apply(coordinator, event(1, heartbeat(1).replace(b'"heartbeat"', b'"song"'))) == Outcome(applied=1)


def test_a_handler_that_breaks_is_undone_alone(coordinator: TestCoordinator) -> None:
    def breaks(session: Session, device_id: DeviceId, envelope: Envelope, now: float) -> None:
        if envelope.sequence == 2:
            session.get_one(DeviceRecord, device_id).agent_version = "half done"
            session.flush()
            raise ZeroDivisionError

    handlers = {EventKind.HEARTBEAT: (*HANDLERS[EventKind.HEARTBEAT], breaks)}
    events = [event(number, heartbeat(number, version=f"v{number}")) for number in (1, 2)]
    with coordinator.services.sessions() as session, session.begin():
        outcome = apply_events(session, events, handlers, on_rejected=raise_malformed_alert, now=1.0)
    assert outcome == Outcome(applied=1, rejected=1)
    assert device(coordinator).agent_version == "v1"


def test_offset_and_effects_are_on_disk_together_or_not_at_all(coordinator: TestCoordinator) -> None:
    class PowerCutError(Exception):
        pass

    def apply_until_the_cut(session: Session) -> None:
        lost = event(1, heartbeat(1, version="lost"))
        apply_events(session, [lost], HANDLERS, on_rejected=raise_malformed_alert, now=1)
        raise PowerCutError

    with pytest.raises(PowerCutError), coordinator.services.sessions() as session, session.begin():
        apply_until_the_cut(session)
    with coordinator.services.sessions() as session, session.begin():
        assert read_offset(session) == 0
    assert device(coordinator).agent_version == ""
    assert apply(coordinator, event(1, heartbeat(1, version="kept"))) == Outcome(applied=1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
envelopes = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([kind.value for kind in EventKind]),
        "id": st.text(max_size=70),
        "device_id": st.just(DEVICE),
        "boot_id": st.text(max_size=70),
        "sequence": st.integers(-1, 2**70),
        "body": json_values,
    }
).map(lambda document: json.dumps(document).encode())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()) | envelopes)
def test_no_payload_stops_the_consumer(payload: bytes) -> None:
    engine = create_engine("sqlite://")
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(device_row())
        session.flush()
        arguments = {"on_rejected": raise_malformed_alert, "now": 1.0}
        outcome = apply_events(session, [event(1, payload)], event_handlers(), **arguments)  # type: ignore[arg-type]
        assert (outcome.applied + outcome.rejected, read_offset(session)) == (1, 1)
    engine.dispose()


def test_a_hub_that_was_away_is_read_from_where_it_was(coordinator: TestCoordinator) -> None:
    async def story() -> None:
        hub, services = coordinator.memory, coordinator.services
        await services.hub.add_device(DEVICE)
        sender = hub.device(DEVICE)
        await sender.connect()
        consumer = EventConsumer(services, event_handlers(), on_rejected=raise_malformed_alert)
        await sender.send_event(heartbeat(1))
        assert (await consumer.run_once()).applied == 1
        await sender.send_event(heartbeat(2, version="later"))
        again = EventConsumer(services, event_handlers(), on_rejected=raise_malformed_alert)
        assert (await again.run_once()).applied == 1

    asyncio.run(story())
    assert device(coordinator).agent_version == "later"


def test_health_says_that_the_hub_is_away_and_that_it_is_back(
    coordinator: TestCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, failures = coordinator.services, [HubUnavailableError("away"), HubUnavailableError("away")]
    seen: list[str] = []
    is_well = asyncio.Event()

    async def read_events(after_offset: int, *, limit: int, wait_s: float) -> list[Event]:
        seen.append(services.health.get("hub", ""))
        if failures:
            raise failures.pop()
        if seen[-1] == "ok":
            is_well.set()
        await asyncio.sleep(0)
        return []

    monkeypatch.setattr(services.hub, "read_events", read_events)
    consumer = EventConsumer(services, {}, on_rejected=raise_malformed_alert)

    async def story() -> None:
        task = asyncio.create_task(consumer.run_forever())
        await is_well.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 10))
    assert seen[:3] == ["", "unavailable: away", "unavailable: away"]
