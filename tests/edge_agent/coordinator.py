"""A real coordinator over TLS in a thread, behind a wire that a test can cut: for the agent's HTTPS client."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from cloud.app import create_app
from cloud.domains import routers
from cloud.pki.authority import ensure_server_certificate, load_or_create_authority
from cloud.settings import Settings
from cloud.work.service import create_work
from edge_agent.coordinator_client import CoordinatorClient
from edge_agent.https import HttpsOrigin, Retries, pinned_context
from shared.api.enrolment import EnrolmentToken
from shared.backoff import Backoff
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.work import Work, WorkKind
from tests.support.coordinator import Machine, TestCoordinator, open_coordinator

START_S = 30.0


class Wire:
    """Forwards TCP, and cuts what a test wants cut: `cut_up` and `cut_down` hold bytes to the next cuts, in order."""

    def __init__(self, address: str, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut_up: list[int] = []
        self.cut_down: list[int] = []
        self.cuts = 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # `shutdown` wakes the thread that accepts; `close` alone would leave it waiting.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            outer = socket.create_connection(self._target)
            self._sockets += [inner, outer]
            threading.Thread(target=self._forward, args=(inner, outer, self.cut_up), daemon=True).start()
            threading.Thread(target=self._forward, args=(outer, inner, self.cut_down), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, cuts: list[int]) -> None:
        """Copies until the end, or until the planned number of bytes went this way on this connection."""
        seen = 0
        try:
            while data := source.recv(16 * 1024):
                seen += len(data)
                target.sendall(data)
                if cuts and seen >= cuts[0]:
                    cuts.pop(0)
                    self.cuts += 1
                    break
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@dataclass(frozen=True)
class Served:
    """A coordinator that runs, and the ways to it."""

    coordinator: TestCoordinator
    wire: Wire
    address: str
    requests: list[str]
    """Method and path of each that came in whole."""

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.wire.port}"

    @property
    def ca_pem(self) -> str:
        return self.coordinator.services.authority.pem

    def origin(self) -> HttpsOrigin:
        return HttpsOrigin(self.url, pinned_context(self.ca_pem))

    def client(self, machine: Machine) -> CoordinatorClient:
        """The agent's client, which does not wait between its tries."""
        retries = Retries(tries_max=3, backoff=Backoff(base_s=0.001, cap_s=0.001), rng=random.Random(0))
        return CoordinatorClient(self.origin(), device_id=machine.device_id, key=machine.key, retries=retries)

    def token(self, **changes: str) -> EnrolmentToken:
        """A fresh token of the coordinator's own making, with the wire's address in it."""
        with httpx.Client(verify=pinned_context(self.ca_pem)) as client:
            answer = client.post(f"{self.url}/v1/tokens", json={}, headers=self.coordinator.operator)
        token = EnrolmentToken.decode(answer.json()["token"])
        return token.model_copy(update={"coordinator_url": self.url, **changes})

    def give_model(self, device_id: DeviceId, payload: bytes) -> ObjectRef:
        """Stores an object, and work for the device that lets it read it."""
        services = self.coordinator.services
        ref = services.blobs.put(payload)
        work = Work(
            work_id=services.new_id(),
            kind=WorkKind.TRAIN,
            campaign_id="c",
            round=1,
            task="digits",
            task_version="1",
            model=ref,
            deadline_s=60,
        )
        with services.sessions() as session, session.begin():
            create_work(session, work, device_id=device_id, now=services.now())
        return ref


@contextmanager
def served(folder: Path, *, address: str, now: float | None = None) -> Iterator[Served]:
    """Runs until the context ends; its clock, and its certificates, say `now`."""
    now = time.time() if now is None else now
    # Made before the coordinator, which would make it at a time of its own.
    pki = Settings.model_validate({"data_dir": folder}).pki_dir
    load_or_create_authority(pki, now=now)
    coordinator = open_coordinator(folder, address=address)
    coordinator.clock.now = now
    ensure_server_certificate(
        coordinator.services.authority, pki, "coordinator", names=[address], now=coordinator.services.now()
    )
    # A cut wire is an error with a traceback to the coordinator, and printing them takes seconds.
    requests: list[str] = []
    with capture_logs(), _uvicorn(coordinator, address, pki, requests) as port:
        wire = Wire(address, (address, port))
        try:
            yield Served(coordinator, wire, address, requests)
        finally:
            wire.close()


def _noting(app: ASGIApp, requests: list[str]) -> ASGIApp:
    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            requests.append(f"{scope['method']} {scope['path']}")
        await app(scope, receive, send)

    return noted


@contextmanager
def _uvicorn(coordinator: TestCoordinator, address: str, pki: Path, requests: list[str]) -> Iterator[int]:
    listener = socket.create_server((address, 0))
    config = uvicorn.Config(
        _noting(create_app(coordinator.services, routers()), requests),
        ssl_certfile=pki / "coordinator.pem",
        ssl_keyfile=str(pki / "coordinator.key"),
        log_config=None,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(START_S)
        listener.close()


def wait_for(is_true: Callable[[], bool], *, timeout_s: float = START_S) -> None:
    """Polls, bounded."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
