"""What nobody reports: silence, and rows that are old enough to forget."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from cloud.db import SessionFactory
from cloud.devices import service as devices
from cloud.monitoring import alerts, retention
from cloud.monitoring.controller import MonitoringController, clear_outlived
from cloud.monitoring.models import ServingWindowRow
from cloud.monitoring.service import note_malformed_event
from cloud.monitoring.windows import newest_windows
from cloud.settings import Settings
from shared.ids import DeviceId
from tests.cloud.rollouts.world import enrol, open_database

PRESS = DeviceId("press-07")


@dataclass
class Outside:
    settings: Settings
    sessions: SessionFactory
    clock: float = 1000.0
    health: dict[str, str] = field(default_factory=dict)

    def now(self) -> float:
        return self.clock


def outside(folder: Path) -> Outside:
    world = Outside(Settings(data_dir=folder, heartbeat_s=10), open_database(folder))
    with world.sessions() as session, session.begin():
        enrol(session, PRESS, last_seen_at=1000.0)
        enrol(session, "never-seen", last_seen_at=None)
    return world


def open_count(world: Outside) -> list[tuple[str, int]]:
    with world.sessions() as session, session.begin():
        return [(row.device_id, row.count) for row in alerts.open_alerts(session)]


def test_a_device_that_falls_silent_is_one_alert_until_it_is_heard_again(tmp_path: Path) -> None:
    world = outside(tmp_path)
    controller = MonitoringController(world)
    world.clock = 1060.0
    asyncio.run(controller.step())
    assert open_count(world) == []
    for clock in (1061.0, 1062.0, 1063.0):
        world.clock = clock
        asyncio.run(controller.step())
    assert open_count(world) == [(PRESS, 1)]
    with world.sessions() as session, session.begin():
        devices.record_seen(session, [PRESS], now=1064.0)
    asyncio.run(controller.step())
    assert open_count(world) == []


def test_a_revoked_device_is_not_missed(tmp_path: Path) -> None:
    world = outside(tmp_path)
    controller = MonitoringController(world)
    world.clock = 1100.0
    asyncio.run(controller.step())
    with world.sessions() as session, session.begin():
        devices.mark_revoked(session, PRESS, now=world.clock)
    asyncio.run(controller.step())
    assert open_count(world) == []


def test_malformed_events_that_stopped_are_no_alert_for_ever(tmp_path: Path) -> None:
    world = outside(tmp_path)
    with world.sessions() as session, session.begin():
        note_malformed_event(session, PRESS, reason="no kind", cause_id="offset-1", now=1000.0)
        note_malformed_event(session, DeviceId("stranger"), reason="no kind", cause_id="offset-2", now=1000.0)
        clear_outlived(session, now=1010.0)
        assert [row.device_id for row in alerts.open_alerts(session)] == [PRESS]
        clear_outlived(session, now=1000.0 + 3601)
        assert alerts.open_alerts(session) == []


def test_windows_are_bounded_by_age_and_by_count(tmp_path: Path) -> None:
    world = outside(tmp_path)
    now = retention.WINDOW_AGE_S_MAX * 2
    with world.sessions() as session, session.begin():
        session.add_all(_window("old", number, received_at=1.0) for number in range(5))
        session.add_all(
            _window("chatty", number, received_at=now) for number in range(retention.WINDOWS_OF_DEVICE_MAX + 30)
        )
        session.flush()
        retention.forget(session, now=now)
        assert newest_windows(session, device_id="old", limit=10) == []
        kept = newest_windows(session, device_id="chatty", limit=10_000)
        assert len(kept) == retention.WINDOWS_OF_DEVICE_MAX
        assert kept[0].requests == retention.WINDOWS_OF_DEVICE_MAX + 29


def _window(device: str, number: int, *, received_at: float) -> ServingWindowRow:
    return ServingWindowRow(
        device_id=device,
        event_id=f"{number}",
        boot_id="boot-1",
        sequence=number,
        received_at=received_at,
        release_id="r-1",
        window_s=1,
        requests=number,
        examples=0,
        errors=0,
    )
