"""A coordinator's state and some devices in one process, on a clock of their own: whole campaigns in a second."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from sqlalchemy import event
from sqlmodel import Session, SQLModel

from cloud.auth.operators import Principal
from cloud.blobs.store import BlobStore
from cloud.campaigns import events as campaign_events
from cloud.campaigns.job import run_campaign
from cloud.campaigns.launch import Launch
from cloud.campaigns.service import create_campaign, get_campaign, plan_campaign
from cloud.db import SessionFactory, open_engine, session_factory
from cloud.devices.models import DeviceRecord
from cloud.jobs.context import JobContext, JsonObject
from cloud.jobs.models import JobRecord
from cloud.registry.service import NewVersion, get_version, register
from cloud.work import events as work_events
from cloud.work.service import pending_for, record_result
from shared.api.campaigns import Campaign, CampaignCreate
from shared.hub.memory import MemoryHub
from shared.ids import DeviceId
from shared.lifecycles import JobState
from shared.messages.base import ObjectRef
from shared.messages.events import Envelope, EventKind, WorkResult, WorkStatus
from shared.messages.work import Work
from shared.tasks.registry import load_task
from shared.tasks.torch_model import state_tensors
from shared.tensors import Tensors, decode, encode

OPERATOR = Principal("operator", "admin")
START = "start-model"
FLOWER_APPS = Path(__file__).parents[2] / "flower_apps"
Behaviour = Callable[["World", DeviceId, Work], WorkResult | None]
"""What a device does with its work; None says nothing, and it is asked again while the work is pending."""


class KilledError(BaseException):
    """The process ends here. Not an Exception: nothing in a program handles it."""


@dataclass
class World:
    """Everything around one campaign job. Time passes only while the job sleeps."""

    folder: Path
    database_url: str = ""
    """Empty means SQLite in the folder."""
    task: str = "digits"
    devices: dict[DeviceId, Behaviour] = field(default_factory=dict)
    clock: float = 1_000.0
    kill_after_writes: int | None = None
    writes: int = 0
    on_sleep: Callable[["World"], None] = lambda world: None
    cancelled: Callable[[], None] = lambda: None
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    progress: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = open_engine(self.database_url or f"sqlite:///{self.folder}/coordinator.sqlite")
        if not self.database_url:
            # A kill inside this process loses nothing that the operating system has: no need to wait for the disk.
            event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        SQLModel.metadata.create_all(self.engine)
        self.sessions = session_factory(self.engine)
        self.blobs = BlobStore(str(self.folder / "blobs"))
        self.model: Tensors = state_tensors(load_task(self.task).model(seed=0))
        with self.sessions() as session, session.begin():
            new = NewVersion("test:start", self.task, "1", self.blobs.put(encode(self.model)))
            register(session, new, model_version_id=START, now=self.clock)

    def add(self, name: str, behaviour: Behaviour, **fields: Any) -> None:
        """An enrolled device that is online and has the task."""
        self.devices[DeviceId(name)] = behaviour
        known: dict[str, Any] = {"tasks": {self.task: "1"}, "last_seen_at": self.clock, **fields}
        row = DeviceRecord(
            device_id=name,
            enrolled_at=1.0,
            created_by_principal="operator",
            created_by_role="admin",
            public_key_pem="",
            certificate_pem="",
            certificate_expires_at=9e9,
            **known,
        )
        with self.sessions() as session, session.begin():
            session.add(row)

    def ask(self, *, number: int = 1, **fields: Any) -> str:
        """A new campaign's id: `campaign-1` unless numbered."""
        asked = CampaignCreate.model_validate(
            {"task": self.task, "model_version_id": START, "rounds": 2, "round_timeout_s": 10, **fields}
        )
        plan = plan_campaign(self.sessions, asked)
        with self.sessions() as session, session.begin():
            create_campaign(session, plan, self.launch(f"campaign-{number}", f"job-{number}"))
        with self.sessions() as session, session.begin():
            job = session.get_one(JobRecord, f"job-{number}")
            job.state = JobState.RUNNING
            session.add(job)
        return f"campaign-{number}"

    def launch(self, campaign_id: str = "campaign-1", job_id: str = "job-1") -> Launch:
        """The circumstances of a campaign that starts now."""
        return Launch(campaign_id, job_id, heartbeat_s=1e6, now=self.clock, principal=OPERATOR)

    def statuses(self, number: int = 1, attempt: int = 1) -> dict[str, str]:
        """How each device asked in this try of the first campaign did."""
        (found,) = [r for r in self.campaign().history if (r.round, r.attempt) == (number, attempt)]
        return {device.device_id: device.status for device in found.devices}

    def reason(self, device_id: str, number: int = 1) -> str:
        """Why it did so, in the only try of this round."""
        (found,) = [r for r in self.campaign().history if r.round == number]
        return next(device.reason for device in found.devices if device.device_id == device_id)

    def run(self, campaign_id: str = "campaign-1") -> JsonObject:
        """The campaign's job, to its end or its kill."""
        return run_campaign(self.context(), campaign_id, sleep=self.sleep, random_bytes=self.random_bytes)

    def context(self) -> JobContext:
        def report(*, fraction: float, step: str, **figures: Any) -> None:
            self.progress.append({"fraction": fraction, "step": step, **figures})

        return JobContext(
            job_id="job-1",
            sessions=self.killing_sessions(),
            blobs=self.blobs,
            work_dir=self.folder / "job",
            open_hub=lambda: MemoryHub(Random(0)).fleet(),
            report_progress=report,
            check_cancelled=lambda: self.cancelled(),
            now=lambda: self.clock,
            flower_apps=FLOWER_APPS,
        )

    def killing_sessions(self) -> SessionFactory:
        """Sessions that end the process after the wanted number of transactions that wrote something."""

        def make() -> Session:
            session = self.sessions()
            event.listen(session, "after_flush", lambda flushed, _: flushed.info.update(wrote=True))
            event.listen(session, "after_commit", self._count)
            return session

        return make

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        self.on_sleep(self)
        self.let_devices_work()

    def let_devices_work(self) -> None:
        for device_id, behaviour in self.devices.items():
            with self.sessions() as session, session.begin():
                pending = pending_for(session, device_id, now=self.clock)
            for work in pending:
                if (result := behaviour(self, device_id, work)) is not None:
                    self.tell(device_id, result)

    def tell(self, device_id: DeviceId, result: WorkResult) -> None:
        with self.sessions() as session, session.begin():
            record_result(session, device_id, result, now=self.clock)

    def hear(self, device_id: DeviceId, result: WorkResult) -> None:
        """The result as an event, through the coordinator's handlers."""
        envelope = Envelope(
            kind=EventKind.WORK_RESULT,
            id="e",
            device_id=device_id,
            boot_id="b",
            sequence=1,
            body=result.model_dump(mode="json"),
        )
        with self.sessions() as session, session.begin():
            for handlers in (work_events, campaign_events):
                for handle in handlers.HANDLERS[EventKind.WORK_RESULT]:
                    handle(session, device_id, envelope, self.clock)

    def campaign(self, campaign_id: str = "campaign-1") -> Campaign:
        with self.sessions() as session, session.begin():
            return get_campaign(session, campaign_id)

    def weights(self, model_version_id: str) -> Tensors:
        with self.sessions() as session, session.begin():
            version = get_version(session, model_version_id)
        return decode(self.blobs.get(version.weights.digest))

    def received(self, work: Work) -> Tensors:
        """The model that the work sends."""
        return decode(self.blobs.get(work.model.digest))

    def _count(self, session: Session) -> None:
        if session.info.pop("wrote", False):
            self.writes += 1
            if self.writes == self.kill_after_writes:
                raise KilledError


def update_of(device_id: DeviceId, work: Work, model: Tensors) -> Tensors:
    """What this device makes of the model in this round: always the same."""
    seed = hashlib.sha256(f"{device_id} {work.round}".encode()).digest()
    random = np.random.default_rng(list(seed))
    noise = {name: random.normal(0, 0.01, model[name].shape) for name in sorted(model)}
    return {name: (np.asarray(value, np.float64) + noise[name]).astype(np.float32) for name, value in model.items()}


def trains(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    """A device that does what it is asked."""
    return done(world, work, update_of(device_id, work, world.received(work)))


def done(world: World, work: Work, tensors: Tensors, metrics: Mapping[str, float] | None = None) -> WorkResult:
    examples = 10.0 + work.round
    ref = world.blobs.put(encode(tensors))
    return answer(work, WorkStatus.DONE, update=ref, metrics=dict(metrics or {"num-examples": examples}))


def answer(work: Work, status: WorkStatus, *, update: ObjectRef | None = None, **fields: Any) -> WorkResult:
    return WorkResult(work_id=work.work_id, status=status, update=update, **fields)


def refuses(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    return answer(work, WorkStatus.REFUSED, reason="Privacy budget spent")


def fails(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    return answer(work, WorkStatus.FAILED, reason="Out of memory")


def stays_silent(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    return None
