"""Puts one agent together: the only place that knows all of its parts."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable

import structlog

from edge_agent.agent import Agent, Parts
from edge_agent.certificate_time import coordinator_trust
from edge_agent.coordinator_client import CoordinatorClient
from edge_agent.events import EventMaker
from edge_agent.flower_apps import AppsHere
from edge_agent.heartbeat import Inventory, agent_version
from edge_agent.https import HttpsOrigin, Retries
from edge_agent.hubs.iothub import IotHubDevice, is_azures
from edge_agent.hubs.mqtt import MqttDevice
from edge_agent.identity import Identity, read_identity
from edge_agent.installs import Installs, TimedSelfTest
from edge_agent.memory import stay_small
from edge_agent.models import Models
from edge_agent.release_transport import CoordinatorTransport
from edge_agent.releases.installer import Installer
from edge_agent.serving.app import InferenceApp
from edge_agent.serving.observer import Observer
from edge_agent.serving.runtime import known_runtime
from edge_agent.serving.server import serving
from edge_agent.serving.slot import ServingSlot
from edge_agent.settings import AgentSettings
from edge_agent.state_dir import StateDir, locked
from edge_agent.surroundings import TrainingGate
from edge_agent.telemetry.monitor import Monitor
from edge_agent.telemetry.spool import Outbox
from edge_agent.training.process import TrainingProcess, TrainingSettings
from edge_agent.work import WorkRunner
from shared.exit_codes import ExitCode
from shared.hub.mqtt.address import BrokerAddress
from shared.hub.port import DeviceHub
from shared.ids import uuid7
from shared.tasks.registry import installed_tasks

_log = structlog.get_logger()


def run_agent(settings: AgentSettings) -> ExitCode:
    """Runs the agent in this process until it is told to stop.

    Raises:
        NotEnrolledError: The state directory has no identity.
        AlreadyRunningError: Another agent uses it.
        AgentError: An address, a setting or a file is not as it must be.
    """
    stay_small()
    state = StateDir(settings.state_dir)
    identity = read_identity(state.identity)
    state.make()
    with locked(state), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(settings, state, identity))


async def _run(settings: AgentSettings, state: StateDir, identity: Identity) -> ExitCode:
    slot, observer = ServingSlot(), Observer()
    app = InferenceApp(slot=slot, observer=observer, version=agent_version())
    monitor = Monitor(slot, observer, drift_examples=settings.drift_window, clock=time.monotonic)
    outbox = Outbox.open(state.outbox)
    trainer = _trainer(settings, state, identity)
    client = _client(identity, state)
    try:
        async with serving(
            app, host=settings.serve_address, port=settings.serve_port, for_anyone=settings.serve_anyone
        ) as endpoint:
            parts = _parts(settings, state, identity, client=client, outbox=outbox, monitor=monitor, trainer=trainer)
            agent = Agent(parts, endpoint)
            _stop_on_signals(agent)
            state.write_serving(url=endpoint.url, host=endpoint.host, port=endpoint.port)
            _log.info("agent_started", device_id=identity.device_id, serving_url=endpoint.url)
            exit_code = await agent.run()
    finally:
        state.serving.unlink(missing_ok=True)
        if trainer is not None:
            await trainer.close()
        client.close()
        outbox.close()
    _log.info("agent_stopped", device_id=identity.device_id, exit_code=int(exit_code))
    return exit_code


def _parts(
    settings: AgentSettings,
    state: StateDir,
    identity: Identity,
    *,
    client: CoordinatorClient,
    outbox: Outbox,
    monitor: Monitor,
    trainer: TrainingProcess | None,
) -> Parts:
    rng = random.Random(os.urandom(16))
    timed_self_test = TimedSelfTest()
    runtime = known_runtime(state.runtime)
    inventory = Inventory(agent_version(), installed_tasks(), runtime.version, runtime.opset_max)
    apps = AppsHere(settings.flower_apps)
    apps.look()
    installer = Installer(
        state_dir=state.releases,
        transport=CoordinatorTransport(client),
        self_test=timed_self_test,
        opset_max=inventory.opset_max,
        now=time.time,
    )
    work = WorkRunner(
        state.work,
        models=Models(state.models, client),
        client=client,
        trainer=trainer,
        gate=TrainingGate(settings.training_limits, state.training_begun, root=settings.system_root),
        rng=rng,
    )
    work.sweep()
    return Parts(
        settings=settings,
        state=state,
        identity=identity,
        hub=_hub(settings, identity),
        client=client,
        outbox=outbox,
        installs=Installs(installer, timed_self_test, monitor),
        work=work,
        monitor=monitor,
        events=EventMaker(identity.device_id, boot_id=_new_id(), new_id=_new_id),
        inventory=inventory,
        apps=apps,
        rng=rng,
        now=time.time,
    )


def _hub(settings: AgentSettings, identity: Identity) -> DeviceHub:
    """The adapter of the hub that enrolment, or a setting, names. Raises BrokerAddressError."""
    broker = settings.hub or identity.enrolment.hub_url
    if not broker:
        return IotHubDevice(
            hostname=identity.enrolment.hub_hostname,
            device_id=identity.device_id,
            certificate_file=identity.certificate_file,
            key_file=identity.key_file,
            ca_pem=None if is_azures(identity.enrolment.hub_hostname) else identity.ca_pem,
        )
    return MqttDevice(
        address=BrokerAddress.parse(broker),
        device_id=identity.device_id,
        certificate_file=identity.certificate_file,
        key_file=identity.key_file,
        ca_pem=identity.enrolment.hub_ca_pem or identity.ca_pem,
    )


def _client(identity: Identity, state: StateDir) -> CoordinatorClient:
    trust = coordinator_trust(identity.ca_pem, state_dir=state.releases, system_time=time.time)
    origin = HttpsOrigin(identity.enrolment.coordinator_url, trust.context, check=trust.check)
    return CoordinatorClient(origin, device_id=identity.device_id, key=identity.key, retries=Retries())


def _trainer(settings: AgentSettings, state: StateDir, identity: Identity) -> TrainingProcess | None:
    """The training process' holder; None on a device without data."""
    data_dir = settings.data_dir or identity.data_dir
    if data_dir is None:
        return None
    return TrainingProcess(
        TrainingSettings(
            data_dir=data_dir,
            state_dir=state.training,
            key_file=identity.key_file,
            limits=settings.privacy_limits,
            allow_without_privacy=settings.allow_without_privacy,
            secure_min=settings.secure_min,
            identity_dir=identity.folder,
            flower_apps=settings.flower_apps,
            node_config=settings.node_config,
        )
    )


def _stop_on_signals(agent: Agent) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.stop, ExitCode.OK)
    loop.add_signal_handler(signal.SIGINT, agent.stop, ExitCode.INTERRUPTED)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # two thirds of the event loop's time, for 2 MB

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _new_id() -> str:
    return uuid7(unix_ms=time.time_ns() // 1_000_000, random_bytes=os.urandom(10))
