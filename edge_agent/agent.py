"""The agent's shell: feeds signals to the core, one by one, and performs the effects it answers with.

    exit_code = asyncio.run(Agent(parts).run())

One task group holds everything that runs beside: the hub's connection, one install, one piece of work, timers. A
mistake of ours in any of them ends the agent with its traceback, and the service manager starts it again: a kill at
any moment is part of the plan.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import structlog

from edge_agent import core
from edge_agent.coordinator_client import CoordinatorClient
from edge_agent.errors import CoordinatorError, DeviceRevokedError
from edge_agent.events import EventMaker
from edge_agent.flower_apps import AppsHere
from edge_agent.heartbeat import Inventory, heartbeat
from edge_agent.hub_link import HubLink
from edge_agent.identity import Identity
from edge_agent.installs import InstallOutcome, Installs
from edge_agent.live_state import live_state
from edge_agent.memory import give_back
from edge_agent.renewal import RETRY_S, renew, wait_s
from edge_agent.serving.server import Endpoint
from edge_agent.settings import AgentSettings
from edge_agent.signals import (
    Announce,
    Connect,
    Effect,
    Fetch,
    FetchDue,
    FetchFailed,
    FetchLater,
    InstallEnded,
    InstallProgressed,
    InstallRetryDue,
    ReadTwin,
    Reject,
    Remember,
    Report,
    ResendResult,
    RetryInstallLater,
    Revoked,
    SendHeartbeat,
    Signal,
    Started,
    StartInstall,
    StartWork,
    Stop,
    WorkEnded,
    WorkFetched,
)
from edge_agent.state_dir import StateDir
from edge_agent.telemetry.monitor import Monitor
from edge_agent.telemetry.spool import Outbox
from edge_agent.threads import in_thread
from edge_agent.training.ledger import head_path, read_balances
from edge_agent.training.ledger_chain import told_head
from edge_agent.work import WorkRunner
from shared.backoff import Backoff
from shared.exit_codes import ExitCode
from shared.hub.port import DeviceHub
from shared.lifecycles import ReleaseState
from shared.messages.base import Message
from shared.messages.events import EventKind, LedgerHead
from shared.messages.work import Work
from shared.privacy import PrivacySpent

CONNECT_BACKOFF = Backoff(base_s=0.5, cap_s=60)
FETCH_BACKOFF = Backoff(base_s=1, cap_s=60)
INSTALL_BACKOFF = Backoff(base_s=1, cap_s=120)
SIGNALS_MAX = 256
"""Signals that wait; whoever brings more waits too."""
TICK_S = 0.5
"""How often inputs are taken from the endpoint for drift."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """What one agent is made of; put together in `compose.py`."""

    settings: AgentSettings
    state: StateDir
    identity: Identity
    hub: DeviceHub
    client: CoordinatorClient
    outbox: Outbox
    installs: Installs
    work: WorkRunner
    monitor: Monitor
    events: EventMaker
    inventory: Inventory
    apps: AppsHere
    rng: random.Random
    now: Callable[[], float]
    """Seconds since the epoch, by the system clock."""


class Agent:
    """One run of the agent."""

    def __init__(self, parts: Parts, endpoint: Endpoint) -> None:
        self._parts = parts
        self._endpoint = endpoint
        self._state = core.State()
        self._signals: asyncio.Queue[Signal] = asyncio.Queue(SIGNALS_MAX)
        self._link = HubLink(parts.hub, parts.outbox, emit=self._signals.put, clock=time.monotonic)
        self._balances: list[PrivacySpent] = []
        self._started_at = time.monotonic()
        self._exit: asyncio.Future[ExitCode] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetch_timer: asyncio.Task[None] | None = None

    def stop(self, exit_code: ExitCode) -> None:
        """Ends the run, soon; safe to call twice."""
        if not self._exit.done():
            self._exit.set_result(exit_code)

    async def run(self) -> ExitCode:
        """Runs until `stop`, or until the coordinator revoked this device."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for loop in (self._decide, self._beat, self._watch, self._report_serving, self._renew):
                self._spawn(loop())
            exit_code = await self._exit
            for task in self._tasks:
                task.cancel()
        return exit_code

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:  # Any: what a coroutine yields and takes
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Deciding and performing

    async def _decide(self) -> None:
        """The one place where the state changes."""
        active = await self._parts.installs.boot()
        give_back()
        await self._signals.put(Started(active, self._parts.state.read_release()))
        while True:
            signal = await self._signals.get()
            self._state, effects = core.step(self._state, signal)
            for effect in effects:
                await self._perform(effect)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Connect(failures):
                self._spawn(self._connect(failures))
            case ReadTwin():
                self._spawn(self._link.read_twin())
            case SendHeartbeat():
                self._send_heartbeat()
            case Remember(release):
                await asyncio.to_thread(self._parts.state.write_release, release)
            case Report(release):
                self._link.report(release)
            case Announce(status):
                await self._keep(EventKind.RELEASE_STATUS, status)
            case StartInstall(release_id, generation):
                self._spawn(self._install(release_id, generation))
            case RetryInstallLater(generation, failures):
                delay_s = INSTALL_BACKOFF.delay_s(failures, self._parts.rng)
                self._spawn(self._signal_later(InstallRetryDue(generation), delay_s))
            case Fetch():
                self._spawn(self._fetch())
            case FetchLater(failures):
                self._fetch_later(failures)
            case StartWork(work):
                self._spawn(self._do_work(work))
            case ResendResult(work_id):
                await asyncio.to_thread(self._parts.outbox.resend_result, work_id)
                self._link.wake()
            case Reject(what, reason):
                _log.warning("rejected", what=what, reason=reason)
            case Stop(exit_code):
                self.stop(exit_code)
            case _:
                assert_never(effect)

    async def _signal_later(self, signal: Signal, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._signals.put(signal)

    async def _keep(self, kind: EventKind, body: Message) -> None:
        """Puts an event into the outbox; it is on disk when this returns."""
        payload = self._parts.events.make(kind, body)
        await asyncio.to_thread(self._parts.outbox.add, kind, payload)
        self._link.wake()

    # Hub and coordinator

    async def _connect(self, failures: int) -> None:
        await asyncio.sleep(CONNECT_BACKOFF.delay_s(failures, self._parts.rng))
        await self._link.connect_once()

    async def _fetch(self) -> None:
        if self._parts.outbox.is_congested:
            await self._signals.put(FetchFailed())
            return
        try:
            fetched = await in_thread(self._parts.work.fetch, name="fetch-work")
        except DeviceRevokedError:
            await self._revoked()
        except CoordinatorError as error:
            if self._state.fetch_failures == 0:
                _log.warning("coordinator_not_reached", reason=error.message)
            await self._signals.put(FetchFailed())
        else:
            work = tuple(fetched.work[: 2 * core.WORK_QUEUE_MAX])
            finished = await asyncio.to_thread(self._parts.outbox.finished, [item.work_id for item in work])
            await self._signals.put(WorkFetched(work, finished))

    def _fetch_later(self, failures: int) -> None:
        rng = self._parts.rng
        interval_s = self._parts.settings.fetch_interval_s
        delay_s = FETCH_BACKOFF.delay_s(failures, rng) if failures else interval_s * rng.uniform(0.75, 1.25)
        if self._fetch_timer is not None:
            self._fetch_timer.cancel()
        self._fetch_timer = self._spawn(self._signal_later(FetchDue(), delay_s))

    async def _revoked(self) -> None:
        _log.error(
            "device_revoked",
            device_id=self._parts.identity.device_id,
            hint="The coordinator took this device's access away. Enrol the machine again under a new name.",
        )
        await self._signals.put(Revoked())

    async def _renew(self) -> None:
        """Keeps the certificate fresh for as long as the agent runs."""
        identity = self._parts.identity
        while True:
            await asyncio.sleep(wait_s(identity, now=self._parts.now()))
            if self._parts.now() < identity.renew_at:
                continue
            try:
                identity = await in_thread(partial(renew, identity, self._parts.client), name="renew")
            except DeviceRevokedError:
                await self._revoked()
                return
            except CoordinatorError as error:
                _log.warning("certificate_not_renewed", reason=error.message)
                await asyncio.sleep(RETRY_S)
            else:
                _log.info("certificate_renewed", expires_at=identity.expires_at)
                await asyncio.sleep(RETRY_S)

    # Releases

    async def _install(self, release_id: str, generation: int) -> None:
        loop = asyncio.get_running_loop()

        def progressed(state: ReleaseState) -> None:
            signal = self._signals.put(InstallProgressed(generation, state))
            asyncio.run_coroutine_threadsafe(signal, loop).result(timeout=60)

        outcome = await in_thread(lambda: self._parts.installs.install(release_id, on_state=progressed), name="install")
        await self._serve(outcome)
        give_back()  # what the install took, and the release before
        await self._signals.put(
            InstallEnded(
                generation=generation,
                active_release_id=self._parts.installs.active_release_id,
                error=outcome.error,
                is_worth_retrying=outcome.is_worth_retrying,
                self_test_ms=outcome.self_test_ms,
            )
        )

    async def _serve(self, outcome: InstallOutcome) -> None:
        if outcome.loaded is not None:
            report = self._parts.monitor.serve(outcome.loaded)
            _log.info("release_serving", release_id=outcome.loaded.release_id)
            if report is not None:
                await self._keep(EventKind.SERVING_REPORT, report)

    # Work

    async def _do_work(self, work: Work) -> None:
        try:
            end = await self._parts.work.run(work)
        except DeviceRevokedError:
            await self._revoked()
            return
        payload, outbox = self._parts.events.make(EventKind.WORK_RESULT, end.result), self._parts.outbox
        keep = outbox.remember_result if end.is_handed_in else outbox.add_result
        await asyncio.to_thread(keep, work.work_id, payload)
        self._parts.work.forget(work)
        self._link.wake()
        await self._signals.put(WorkEnded(work.work_id))

    # Telemetry

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._parts.settings.heartbeat_s)
            if self._parts.apps.folder is not None:
                await in_thread(self._parts.apps.look, name="look-for-apps")
            self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        if not self._state.is_connected:
            return
        body = heartbeat(
            self._parts.inventory,
            apps=self._parts.apps.contents,
            uptime_s=time.monotonic() - self._started_at,
            serving_url=self._endpoint.url,
            events_rejected=self._state.rejected,
            ledger=self._ledger_head(),
            privacy=self._privacy(),
            privacy_limits=None if self._data_dir is None else self._parts.settings.privacy_limits,
            live=live_state(data_dir=self._data_dir, root=self._parts.settings.system_root),
        )
        self._link.say_alive(self._parts.events.make(EventKind.HEARTBEAT, body))

    def _ledger_head(self) -> LedgerHead | None:
        return None if self._data_dir is None else told_head(head_path(self._parts.state.training))

    def _privacy(self) -> list[PrivacySpent]:
        """What the ledger says, read after its head: no heartbeat tells less than belongs to the head in it."""
        balances = read_balances(self._parts.state.training)
        self._balances = self._balances if balances is None else balances
        return self._balances

    @property
    def _data_dir(self) -> Path | None:
        return self._parts.settings.data_dir or self._parts.identity.data_dir

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self._parts.monitor.tick()

    async def _report_serving(self) -> None:
        while True:
            await asyncio.sleep(self._parts.settings.report_window_s)
            await self._parts.monitor.tick()
            report = self._parts.monitor.take_report()
            if report is not None:
                await self._keep(EventKind.SERVING_REPORT, report)
