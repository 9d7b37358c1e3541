"""A coordinator and its devices in one process: everything real but the network (see `simulations.bench.fleet`)."""

import asyncio
import hashlib
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import psutil
from fastapi import Response
from sqlmodel import col, func, select

from cloud.auth.operators import Principal
from cloud.campaigns.job import run_campaign
from cloud.campaigns.launch import Launch
from cloud.campaigns.service import create_campaign, get_campaign, plan_campaign
from cloud.compose import build_services
from cloud.db import reading
from cloud.devices.models import DeviceRecord
from cloud.domains import event_consumer
from cloud.first_start import prepare
from cloud.jobs.bell import JobEar
from cloud.jobs.context import JobContext
from cloud.jobs.models import JobRecord
from cloud.registry.service import NewVersion, register
from cloud.services import Services
from cloud.settings import Settings
from cloud.work.routes import get_work, store_result
from edge_agent.events import EventMaker
from shared.api.campaigns import CampaignCreate
from shared.hub.memory import MemoryDevice, MemoryHub
from shared.hub.port import CommandReply, FleetHub
from shared.ids import DeviceId, Digest
from shared.lifecycles import JobState
from shared.messages.attached import detach
from shared.messages.base import ObjectRef
from shared.messages.events import EventKind, Heartbeat, WorkResult, WorkStatus
from shared.messages.work import Work, WorkList
from shared.tasks.registry import load_task
from shared.tasks.torch_model import state_tensors
from shared.tensors import decode, encode

ADDRESS = "127.0.0.48"
HEARTBEAT_S = 600.0
ROUND_TIMEOUT_S = 600.0
THREADS = 8
"""Requests of devices under way at the same time."""
_CAMPAIGN, _JOB, _START = "bench", "bench", "start"
_TASK = "digits"
_OPERATOR = Principal("bench", "admin")


def figures_of(*, devices: int, cohort: int, rounds: int) -> dict[str, float]:
    """What the coordinator makes of them."""
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name:
        return asyncio.run(_Fleet(Path(name), devices=devices).figures(cohort=cohort, rounds=rounds))


class _Fleet:
    def __init__(self, folder: Path, *, devices: int) -> None:
        self._folder = folder
        self._names = [DeviceId(f"device-{number:06}") for number in range(devices)]
        self._task = load_task(_TASK)

    async def figures(self, *, cohort: int, rounds: int) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS))
        settings = Settings.model_validate({"data_dir": self._folder, "address": ADDRESS})
        await asyncio.to_thread(prepare, settings, now=time.time())
        memory = MemoryHub(random.Random(0))
        services = replace(build_services(settings), hub=memory.fleet())
        await asyncio.to_thread(self._enrol, services)
        for name in self._names:
            await services.hub.add_device(name)
        consuming = asyncio.create_task(event_consumer(services).run_forever())
        check_in_s = await self._check_in(memory, services)
        idle_mb = _resident_mb()
        await asyncio.to_thread(self._ask, services, cohort=cohort, rounds=rounds)
        started = time.process_time()
        await asyncio.to_thread(self._run, services, loop)
        spent_s = time.process_time() - started
        round_s = self._round_s(services)
        consuming.cancel()
        return {
            "check-ins/s": len(self._names) / check_in_s,
            "rounds/min": 60 / round_s,
            "ms/device": round_s / cohort * 1000,
            "CPU ms/device": spent_s / (rounds * cohort) * 1000,
            "idle MB": idle_mb,
        }

    def _enrol(self, services: Services) -> None:
        """Rows as enrolment leaves them; ten thousand certificates would be most of the bench."""
        now = services.now()
        with services.sessions() as session, session.begin():
            for name in self._names:
                row = DeviceRecord(
                    device_id=name,
                    enrolled_at=now,
                    created_by_principal=_OPERATOR.name,
                    created_by_role=_OPERATOR.role,
                    public_key_pem="",
                    certificate_pem="",
                    certificate_expires_at=now + 1e6,
                    is_in_hub=True,
                )
                session.add(row)

    async def _check_in(self, memory: MemoryHub, services: Services) -> float:
        """Every device connects and says what it is; returns the seconds until the coordinator knows of the last."""
        started = time.perf_counter()
        heartbeat = Heartbeat(agent_version="1", tasks={_TASK: self._task.version})
        for name in self._names:
            await _Device(name, memory, services).connect(heartbeat)
        await asyncio.to_thread(_wait_until_all_are_seen, services)
        return time.perf_counter() - started

    def _ask(self, services: Services, *, cohort: int, rounds: int) -> None:
        weights = services.blobs.put(encode(state_tensors(self._task.model(seed=0))))
        asked = CampaignCreate.model_validate(
            {
                "task": _TASK,
                "model_version_id": _START,
                "rounds": rounds,
                "quorum": cohort,
                "round_timeout_s": ROUND_TIMEOUT_S,
                "selection": {"cohort": cohort},
            }
        )
        now = services.now()
        with services.sessions() as session, session.begin():
            new = NewVersion("bench:start", _TASK, self._task.version, weights)
            register(session, new, model_version_id=_START, now=now)
        plan = plan_campaign(services.sessions, asked)
        with services.sessions() as session, session.begin():
            create_campaign(session, plan, Launch(_CAMPAIGN, _JOB, HEARTBEAT_S, now, _OPERATOR))
        with services.sessions() as session, session.begin():
            session.get_one(JobRecord, _JOB).state = JobState.RUNNING

    def _run(self, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        """The campaign's job, in this thread."""
        ear = JobEar()
        services.bell.connect(_JOB, ear.ring)
        context = JobContext(
            job_id=_JOB,
            sessions=services.sessions,
            blobs=services.blobs,
            work_dir=self._folder / "job",
            open_hub=lambda: _in_loop(services.hub, loop),
            report_progress=lambda **_: None,
            check_cancelled=lambda: None,
            now=services.now,
        )
        run_campaign(context, _CAMPAIGN, sleep=ear.sleep)
        services.bell.disconnect(_JOB)

    def _round_s(self, services: Services) -> float:
        """From one round's start to the next one's; the first, in which everything is new, does not count."""
        with services.sessions() as session, session.begin():
            history = get_campaign(session, _CAMPAIGN).history
        starts = [done.started_at for done in history if done.state == "done"]
        ends = [*starts, history[-1].finished_at or 0.0]
        return median(after - before for before, after in list(pairwise(ends))[1:])


class _Device:
    """One device: a heartbeat, and then work as the doorbell rings."""

    def __init__(self, name: DeviceId, memory: MemoryHub, services: Services) -> None:
        self._name, self._services = name, services
        self._hub: MemoryDevice = memory.device(name)
        self._working: asyncio.Task[None] | None = None
        self._hub.on_command(self._on_command)

    async def connect(self, heartbeat: Heartbeat) -> None:
        await self._hub.connect()
        events = EventMaker(self._name, boot_id=f"boot-{self._name}", new_id=lambda: f"event-{self._name}")
        await self._hub.send_event(events.make(EventKind.HEARTBEAT, heartbeat))

    async def _on_command(self, _name: str, _payload: Any) -> CommandReply:
        self._working = asyncio.create_task(asyncio.to_thread(self._work))
        return CommandReply(200, {})

    def _work(self) -> None:
        """Fetches and answers all there is, through the functions of the routes."""
        answer = get_work(self._services, self._name, base="")
        assert isinstance(answer, Response), "Expected work, and a model small enough to come with it"
        document, model = detach(bytes(answer.body))
        for work in WorkList.parse(document).work:
            update = _moved(model, self._name)
            store_result(self._services, self._name, _result(work, update), update)


def _moved(model: bytes, name: DeviceId) -> bytes:
    """An update that no other device sends."""
    moved = np.float32(1e-6 * (int(name.rpartition("-")[2]) + 1))
    return encode({key: np.add(value, moved, dtype=np.float32) for key, value in decode(model).items()})


def _result(work: Work, update: bytes) -> WorkResult:
    digest = Digest(hashlib.sha256(update).hexdigest())
    return WorkResult(
        work_id=work.work_id,
        status=WorkStatus.DONE,
        update=ObjectRef(digest=digest, size_bytes=len(update)),
        metrics={"num-examples": 10.0},
    )


class _InLoop:
    """The hub in memory, which belongs to one event loop, rung from another one. Of `FleetHub`, what doorbells use."""

    def __init__(self, hub: FleetHub, loop: asyncio.AbstractEventLoop) -> None:
        self._hub, self._loop = hub, loop

    async def command(self, device_id: DeviceId, name: str, payload: Any, *, timeout_s: float) -> CommandReply:
        call = self._hub.command(device_id, name, payload, timeout_s=timeout_s)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._loop))

    async def close(self) -> None:
        return


def _in_loop(hub: FleetHub, loop: asyncio.AbstractEventLoop) -> FleetHub:
    return cast(FleetHub, _InLoop(hub, loop))


def _wait_until_all_are_seen(services: Services) -> None:
    unseen = select(func.count()).where(col(DeviceRecord.boot_id).is_(None))
    while True:
        with reading(services.sessions) as session:
            if not session.exec(unseen).one():
                return
        time.sleep(0.02)


def _resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6
