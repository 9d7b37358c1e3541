"""The hub as a running thing: both doors over one store, retention, and a clean stop."""

import asyncio
import contextlib
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request as HandshakeRequest

from cloud.localhub.amqp.server import AmqpServer
from cloud.localhub.blobs import PREFIX, BlobApi
from cloud.localhub.certificates import peer_certificate
from cloud.localhub.errors import LocalHubError, StartError
from cloud.localhub.faults import Fault
from cloud.localhub.gates import Gates
from cloud.localhub.http import Receive, Scope, Send
from cloud.localhub.hub import Hub
from cloud.localhub.limits import Limits
from cloud.localhub.mqtt_server import MqttServer
from cloud.localhub.policies import load_or_create_policies
from cloud.localhub.rest.application import PEER_CERTIFICATE, ServiceApi
from cloud.localhub.session import PACKET_BYTES_MAX
from cloud.localhub.store import Store
from cloud.localhub.throttles import Plan
from cloud.localhub.websocket import serve_websocket

_log = structlog.get_logger("localhub")

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_REST_CONCURRENCY_MAX = 512
_STOP_S = 3


@dataclass(frozen=True)
class Settings:
    """Where the hub listens and what it is. Port 0 lets the system choose.

    `certificate` and `key` are PEM files; the certificate's subject alternative names are what clients dial.
    `client_ca` is a PEM file of the CAs whose client certificates may connect.
    """

    data_dir: Path
    certificate: Path
    key: Path
    client_ca: Path
    address: str = "127.0.0.1"
    mqtt_port: int = 8883
    rest_port: int = 8443
    amqp_port: int | None = None
    """For consumers of events, which dial 5671; None opens no such port."""
    hostname: str = ""
    """What devices dial, which the provisioning service tells them; empty for the address."""
    partitions: int | None = None
    """Of the event log, fixed when the data folder is made; None takes what is there, or IoT Hub's default."""
    limits: Limits = field(default_factory=Limits)
    plan: Plan | None = None
    """The tier whose throttles hold; None for none."""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class RunningHub:
    """A hub that answers on its ports; `amqp_port` is 0 where it has none."""

    hub: Hub
    mqtt_port: int
    rest_port: int
    amqp_port: int


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[RunningHub]:
    """A hub for as long as the context lasts. Raises LocalHubError where it cannot start."""
    device_tls = _tls(settings)
    device_tls.num_tickets = 0  # Devices do not resume sessions; a ticket costs time and bytes at every connect.
    service_tls = _tls(settings)
    store = Store(settings.data_dir, partitions=settings.partitions)
    try:
        policies = load_or_create_policies(settings.data_dir)
        hostname = settings.hostname or settings.address
        hub = Hub(
            store,
            policies,
            limits=settings.limits,
            clock=time.time,
            hostname=hostname,
            files_dir=settings.data_dir / "files",
            gates=Gates(clock=time.time, plan=settings.plan, faults=settings.faults),
        )
        async with contextlib.AsyncExitStack() as stack:
            devices = MqttServer(hub, device_tls)
            stack.push_async_callback(devices.close)
            try:
                await devices.start(address=settings.address, port=settings.mqtt_port)
                rest_port = await stack.enter_async_context(_service_door(hub, devices, settings, service_tls))
                amqp_port = await stack.enter_async_context(_consumers_door(hub, settings, service_tls))
            except OSError as error:
                raise StartError(f"Expected free ports on {settings.address}, got: {error}") from error
            await stack.enter_async_context(_background(_retain(hub)))
            await stack.enter_async_context(_background(hub.configurator.run(hub.notify)))
            await stack.enter_async_context(_background(hub.jobs.run()))
            await hub.transfers.start()
            stack.push_async_callback(hub.transfers.stop)
            stack.callback(hub.stop)
            yield RunningHub(hub, devices.port, rest_port, amqp_port)
    finally:
        await store.close()


async def serve(settings: Settings) -> None:
    """Runs a hub until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    async with running(settings) as live:
        ports = {"mqtt_port": live.mqtt_port, "rest_port": live.rest_port, "amqp_port": live.amqp_port}
        _log.info("hub_started", address=settings.address, **ports)
        await stop.wait()
        _log.info("hub_stopping")
    _log.info("hub_stopped")


def _tls(settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key)
        # A token's bearer has no certificate; a certificate that comes must be of our CA.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(settings.client_ca)
    except OSError as error:
        raise StartError(f"Expected a certificate, its key and the client CA as PEM files, got: {error}") from error
    return context


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers: the hub has its own."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # a generator of None; uvicorn's own type varies
        yield


class _Http(HttpToolsProtocol):
    """Uvicorn's HTTP, which tells the application the client's certificate."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        tls = self.transport.get_extra_info("ssl_object")
        self.scope["state"][PEER_CERTIFICATE] = peer_certificate(tls)


class _WebSocket(WebSocketsSansIOProtocol):
    """Uvicorn's WebSockets, which tell the application the client's certificate.

    Its connections are devices: `MqttServer` bounds and closes them, so they do not count among the service's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # uvicorn's arguments, handed on
        super().__init__(*args, **kwargs)
        self.connections, self.tasks = set(), set()

    def handle_connect(self, event: HandshakeRequest) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            tls = self.transport.get_extra_info("ssl_object")
            self.scope["state"][PEER_CERTIFICATE] = peer_certificate(tls)


def _application(hub: Hub, devices: MqttServer) -> Application:
    services, blobs = ServiceApi(hub), BlobApi(hub.files, limits=hub.limits)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await serve_websocket(devices, scope, receive, send, scope["state"].get(PEER_CERTIFICATE))
        elif scope["path"].startswith(PREFIX):
            await blobs(scope, receive, send)
        else:
            await services(scope, receive, send)

    return application


@asynccontextmanager
async def _service_door(hub: Hub, devices: MqttServer, settings: Settings, tls: ssl.SSLContext) -> AsyncIterator[int]:
    listener = _listen(settings.address, settings.rest_port)
    config = uvicorn.Config(
        _application(hub, devices),
        http=_Http,
        loop="asyncio",
        ws=_WebSocket,
        ws_max_size=PACKET_BYTES_MAX,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_REST_CONCURRENCY_MAX,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_STOP_S,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        ssl_context_factory=lambda *_: tls,
    )
    server = _Uvicorn(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110  # uvicorn offers no event
            await asyncio.sleep(0.01)
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.wait({task}, timeout=_STOP_S + 2)
        listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()  # A caller that does not say goodbye is not waited for any longer.


@asynccontextmanager
async def _consumers_door(hub: Hub, settings: Settings, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """The AMQP endpoint's port; 0 where none is asked for."""
    if settings.amqp_port is None:
        yield 0
        return
    door = AmqpServer(hub, tls)
    await door.start(address=settings.address, port=settings.amqp_port)
    try:
        yield door.port
    finally:
        await door.close()


def _listen(address: str, port: int) -> socket.socket:
    listener = socket.create_server((address, port), backlog=1024)
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def _background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _retain(hub: Hub) -> None:
    """Trims the event log and ends messages that are over their time, now and then."""
    while True:
        try:
            removed = await hub.events.trim()
            await hub.expire()
        except LocalHubError as error:
            _log.warning("retention_failed", reason=str(error))
        else:
            if removed:
                _log.info("events_expired", removed=removed)
        await asyncio.sleep(hub.limits.retention_interval_s)
