"""A coordinator with a database on disk and a hub in memory, and a fleet of devices that follow a script.

`World.second()` is one second: the controller steps, the devices look at their desired document and send events, and
the coordinator takes the events in. The coordinator may be killed at any commit and at any call of the hub.
"""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool
from sqlmodel import Session, SQLModel, create_engine

from cloud.db import SessionFactory, open_engine, session_factory
from cloud.devices import service as devices
from cloud.devices.models import DeviceRecord
from cloud.monitoring.service import keep_reference
from cloud.rollouts import service, store
from cloud.rollouts.controller import RolloutController
from cloud.rollouts.events import on_release_status
from cloud.rollouts.observations import inventory
from cloud.rollouts.values import Target
from cloud.rollouts.views import view
from shared.api.rollouts import Rollout, RolloutCreate
from shared.hub.memory import MemoryFleet, MemoryHub
from shared.hub.port import Document, HubUnavailableError
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState
from shared.messages.desired import DesiredDocument
from shared.messages.events import Envelope, EventKind, ReleaseStatus
from shared.sketches import DriftProfile, FeatureProfile

HEARTBEAT_S = 10.0
WAY = (
    ReleaseState.DOWNLOADING,
    ReleaseState.VERIFYING,
    ReleaseState.TESTING,
    ReleaseState.ACTIVATING,
    ReleaseState.ACTIVE,
)
PROFILE = DriftProfile(
    features=[
        FeatureProfile(feature=name, edges=[0.0], proportions=[0.5, 0.5], threshold=0.2)
        for name in ("gyro-x", "gyro-y", "gyro-z")
    ],
    examples_min=50,
    reference_examples=1000,
)


class KilledError(Exception):
    """The coordinator dies here."""


@dataclass
class Killer:
    """Kills at the n-th point: just before or after a commit, or before or after a call of the hub."""

    at: int | None = None
    points: int = 0

    def point(self) -> None:
        self.points += 1
        if self.points == self.at:
            raise KilledError(f"at point {self.at}")

    def watch(self, sessions: SessionFactory) -> SessionFactory:
        def watched() -> Session:
            session = sessions()
            event.listen(session, "before_commit", lambda _session: self.point())
            event.listen(session, "after_commit", lambda _session: self.point())
            return session

        return watched


@dataclass
class WatchedHub(MemoryFleet):
    """Counts calls as points to be killed at, remembers what it was told, and can be away."""

    hub: MemoryHub
    killer: Killer
    told: list[tuple[str, int, str]] = field(default_factory=list)
    """Device, generation and release, in order."""
    is_away: bool = False
    refuses: Callable[[DeviceId], Exception | None] = lambda _device: None

    def __post_init__(self) -> None:
        super().__init__(self.hub)

    async def set_desired(self, device_id: DeviceId, patch: Document) -> int:
        self.killer.point()
        refusal = self.refuses(device_id)
        if refusal is not None:
            raise refusal
        if self.is_away:
            raise HubUnavailableError("Expected the hub, got nothing")
        version = await super().set_desired(device_id, patch)
        wanted = DesiredDocument.parse_document(dict(patch)).release
        assert wanted is not None
        self.told.append((device_id, wanted.generation, wanted.release_id))
        self.killer.point()
        return version


@dataclass
class ScriptedDevice:
    """Takes each generation once, and says one state a second; `fails_at` of a generation says where it ends."""

    device_id: DeviceId
    fails: dict[int, str] = field(default_factory=dict)
    """By generation, the sentence with which it fails in testing."""
    is_silent: bool = False
    way: tuple[ReleaseState, ...] = WAY
    """What it says, one a second, when all goes well."""
    generation: int = 0
    release_id: str = ""
    active: str | None = None
    left: list[ReleaseState] = field(default_factory=list)
    sequence: int = 0

    def look(self, desired: Document) -> None:
        wanted = DesiredDocument.parse_document(dict(desired)).release
        if wanted is None or wanted.generation <= self.generation:
            return
        self.generation, self.release_id = wanted.generation, wanted.release_id
        self.left = list(self.way if self.active != wanted.release_id else self.way[-1:])

    def speak(self) -> Iterator[Envelope]:
        if not self.left or self.is_silent:
            return
        state = self.left.pop(0)
        error = ""
        if state is ReleaseState.TESTING and self.generation in self.fails:
            state, error = ReleaseState.FAILED, self.fails[self.generation]
            self.left = []
        if state is ReleaseState.ACTIVE:
            self.active = self.release_id
        yield self.status(state, error=error)

    def status(self, state: ReleaseState, *, error: str = "", boot: str = "boot-1") -> Envelope:
        self.sequence += 1
        body = ReleaseStatus(
            release_id=self.release_id,
            generation=self.generation,
            state=state,
            error=error,
            active_release_id=self.active,
        )
        return envelope(self.device_id, EventKind.RELEASE_STATUS, body.model_dump(), sequence=self.sequence, boot=boot)


def envelope(device_id: str, kind: EventKind, body: dict[str, Any], *, sequence: int, boot: str = "boot-1") -> Envelope:
    return Envelope(
        kind=kind, id=f"{kind}-{boot}-{sequence}", device_id=device_id, boot_id=boot, sequence=sequence, body=body
    )


@dataclass
class World:
    """Everything; `restart` is what comes after a kill."""

    path: Path
    devices: dict[DeviceId, ScriptedDevice]
    hub: WatchedHub
    killer: Killer
    sessions: SessionFactory
    """Of the test: never killed."""
    clock: float = 1000.0
    health: dict[str, str] = field(default_factory=dict)
    database_failures_left: int = 0
    """So often the coordinator's database will be away from now on."""

    def __post_init__(self) -> None:
        self.restart()

    def now(self) -> float:
        return self.clock

    def restart(self) -> None:
        """A new process: nothing is left but the database and the hub."""
        sessions = self.killer.watch(session_factory(hasty_engine(self.path)))

        def sometimes() -> Session:
            if self.database_failures_left > 0:
                self.database_failures_left -= 1
                raise OperationalError("BEGIN", None, sqlite3.OperationalError("database is away"))
            return sessions()

        self.controller = RolloutController(Outside(sometimes, self.hub, self.now, self.health))

    async def second(self) -> None:
        """One second of everybody; a coordinator that dies is started again within it."""
        try:
            await self.controller.step()
        except KilledError:
            self.restart()
        self.clock += 1
        for device in self.devices.values():
            device.look((await self.hub.get_twin(device.device_id)).desired.document)
        with self.sessions() as session, session.begin():
            for device in self.devices.values():
                self.hear(session, device)

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            await self.second()

    def hear(self, session: Session, device: ScriptedDevice) -> None:
        for said in device.speak():
            on_release_status(session, device.device_id, said, self.clock)
        if not device.is_silent:
            devices.record_seen(session, [device.device_id], now=self.clock)

    def take_in(self, device_id: DeviceId, said: Envelope) -> None:
        with self.sessions() as session, session.begin():
            on_release_status(session, device_id, said, self.clock)

    def plan(self, release_id: str = "r-2", *, name: str = "", **request: Any) -> Rollout:
        """Plans a rollout. `Any`: fields of RolloutCreate."""
        asked = RolloutCreate(release_id=release_id, **{"soak_s": 2, "wave_timeout_s": 30, **request})
        target = Target(release_id=release_id, task="digits", task_version="1", opset=17)
        with self.sessions() as session, session.begin():
            keep_reference(session, release_id, PROFILE)
            fleet = inventory(session, only=asked.devices, now=self.clock, heartbeat_s=HEARTBEAT_S)
            row = service.create_rollout(
                session,
                asked,
                target=target,
                inventory=fleet,
                rollout_id=name or f"rollout-{release_id}",
                principal="ada",
                role="admin",
                now=self.clock,
            )
            return view(session, row)

    def start(self, rollout_id: str) -> None:
        with self.sessions() as session, session.begin():
            service.start_rollout(session, rollout_id, now=self.clock)

    def stop(self, rollout_id: str) -> Rollout:
        with self.sessions() as session, session.begin():
            return view(session, service.stop_rollout(session, rollout_id, principal="ada", now=self.clock))

    def resume(self, rollout_id: str) -> None:
        with self.sessions() as session, session.begin():
            service.resume_rollout(session, rollout_id, now=self.clock)

    def show(self, rollout_id: str) -> Rollout:
        with self.sessions() as session, session.begin():
            return view(session, store.get_rollout(session, rollout_id))

    def started(self, release_id: str = "r-2", **request: Any) -> Rollout:
        """Plans and starts. `Any`: fields of RolloutCreate."""
        planned = self.plan(release_id, **request)
        self.start(planned.rollout_id)
        return planned


@dataclass(frozen=True)
class Outside:
    """What the rollout controller needs of the coordinator's services."""

    sessions: SessionFactory
    hub: WatchedHub
    now: Callable[[], float]
    health: dict[str, str]


def fleet_names(count: int) -> list[DeviceId]:
    return [DeviceId(f"d-{number:02d}") for number in range(count)]


def open_database(folder: Path) -> SessionFactory:
    """A fresh database with all tables, in a folder that is made if need be."""
    folder.mkdir(exist_ok=True)
    path = folder / "coordinator.sqlite"
    path.write_bytes(_empty_database())
    return session_factory(hasty_engine(path))


def hasty_engine(path: Path) -> Engine:
    """As the coordinator's, but it waits for no disk: here programs are killed, not the power."""
    engine = open_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA synchronous=OFF"))
    return engine


@cache
def _empty_database() -> bytes:
    """All tables, made once: it is most of a short story's time."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    SQLModel.metadata.create_all(engine)
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        content = raw.serialize()
    engine.dispose()
    return content


def enrol(session: Session, device_id: str, **changed: Any) -> None:
    """A device that can run everything here. `Any`: fields of DeviceRecord."""
    known: dict[str, Any] = {
        "enrolled_at": 0.0,
        "last_seen_at": 1000.0,
        "created_by_principal": "ada",
        "created_by_role": "admin",
        "public_key_pem": "",
        "certificate_pem": "",
        "certificate_expires_at": 1e12,
        "tasks": {"digits": "1"},
        "opset_max": 21,
    }
    session.add(DeviceRecord(device_id=device_id, **{**known, **changed}))


async def open_world(folder: Path, *, count: int = 5, kill_at: int | None = None) -> World:
    """A fleet of `count` devices that are enrolled, known to the hub, and serve nothing yet."""
    sessions = open_database(folder)
    killer = Killer(kill_at)
    hub = WatchedHub(MemoryHub(Random(1)), killer)
    with sessions() as session, session.begin():
        for name in fleet_names(count):
            enrol(session, name)
    for name in fleet_names(count):
        await hub.add_device(name)
    scripted = {name: ScriptedDevice(name) for name in fleet_names(count)}
    return World(folder / "coordinator.sqlite", scripted, hub, killer, sessions)
