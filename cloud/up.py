"""`fleetlearn up`: the local hub and the coordinator on one machine, watched until Ctrl-C or SIGTERM."""

import http.client
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from types import FrameType

import structlog

from cloud.children import Children
from cloud.database_lock import DatabaseLock
from cloud.errors import CoordinatorError, UnavailableError
from cloud.first_start import ensure_server_certificates, prepare
from cloud.health import OK
from cloud.locks import exclusive
from cloud.logs import configure_logs
from cloud.pki.authority import load_or_create_authority
from cloud.settings import ENVIRONMENT_PREFIX, Settings
from shared.exit_codes import ExitCode

HEALTHY_S = 60.0
RENEWAL_S = 3600.0
"""How often the servers' certificates are looked at."""
_POLL_S = 0.1
_REQUEST_S = 2.0
_log = structlog.get_logger()


class NotHealthyError(UnavailableError):
    """The coordinator does not answer, or says that something is wrong."""

    code = "not_healthy"


class _Stop:
    """Set by the first signal; which one decides the exit code."""

    def __init__(self) -> None:
        self.signal_number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = self.signal_number or number


def up(settings: Settings) -> int:
    """Prepares the data folder at the first start, starts both processes and watches them.

    Raises AlreadyRunningError, ChildEndedError or NotHealthyError.
    """
    configure_logs(level=settings.log_level, style="text")
    stop = _Stop()
    with exclusive(settings.data_dir / "up.lock", what="`fleetlearn up`"):
        with DatabaseLock(settings.database):  # the coordinator we start takes it over
            prepare(settings, now=time.time())
        children = Children(settings.logs_dir)
        try:
            _start(children, settings)
            if _wait_until_healthy(children, settings, stop):
                print(summary(settings), flush=True)
            _watch(children, settings, stop)
        finally:
            children.stop()
    return ExitCode.INTERRUPTED if stop.signal_number == signal.SIGINT else ExitCode.OK


def check(settings: Settings) -> Mapping[str, str]:
    """What each component of a running coordinator says. Raises NotHealthyError when it cannot be asked."""
    try:
        context = ssl.create_default_context(cafile=str(settings.pki_dir / "ca.pem"))
        connection = http.client.HTTPSConnection(settings.address, settings.port, timeout=_REQUEST_S, context=context)
        try:
            connection.request("GET", "/health")
            health = json.loads(connection.getresponse().read())
            return {name: str(state) for name, state in health["components"].items()}
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise NotHealthyError(
            f"Expected a coordinator at {settings.url}, got {type(error).__name__}",
            hint=f"Logs: {settings.logs_dir}",
        ) from error


def summary(settings: Settings) -> str:
    """Where to look, for people."""
    rows = {
        "coordinator": f"{settings.url}   (API: {settings.url}/docs)",
        "hub": f"{settings.device_hub or f'{settings.device_hub_hostname}:{settings.mqtt_port}'} for devices",
        "operator token": str(settings.operator_token_file),
        "CA certificate": str(settings.pki_dir / "ca.pem"),
        "offline keys": f"{settings.offline_keys_dir}   (they sign releases: move them off this machine)",
        "logs": str(settings.logs_dir),
        "next": f"fleetlearn tokens create --data {settings.data_dir}",
        "watch": f"fleetlearn tui --data {settings.data_dir}",
    }
    return "\n".join(["fleetlearn is up; Ctrl-C stops it.", *(f"  {name:<15} {text}" for name, text in rows.items())])


def _start(children: Children, settings: Settings) -> None:
    program = [sys.executable, "-m", "shared"]
    environment = dict(os.environ) | _as_environment(settings)
    if settings.has_local_hub:
        children.start("hub", [*program, "hub", "serve", *_hub_arguments(settings)], environment=environment)
    serve = [*program, "coordinator", "serve", "--data", str(settings.data_dir)]
    children.start("coordinator", serve, environment=environment)


def _watch(children: Children, settings: Settings, stop: _Stop) -> None:
    """Until somebody stops us."""
    next_renewal = time.monotonic() + RENEWAL_S
    while not stop.signal_number:
        children.tend(now=time.monotonic())
        if time.monotonic() >= next_renewal:
            renew_certificates(children, settings, now=time.time())
            next_renewal = time.monotonic() + RENEWAL_S
        time.sleep(_POLL_S)


def renew_certificates(children: Children, settings: Settings, *, now: float) -> None:
    """Renews the servers' certificates at two thirds of their life, and starts those again that have a new one.

    What is wrong with the key files is logged: the servers go on with what they have, and it is tried again.
    """
    try:
        authority = load_or_create_authority(settings.pki_dir, now=now)
        renewed = ensure_server_certificates(authority, settings, now=now)
    except (CoordinatorError, OSError) as error:
        _log.error("server_certificates_not_renewed", reason=str(error))
        return
    for server in renewed:
        _log.info("server_certificate_renewed", server=server)
        children.restart(server)


def _hub_arguments(settings: Settings) -> list[str]:
    given = {
        "--data": settings.hub_dir,
        "--address": settings.address,
        "--mqtt-port": settings.mqtt_port,
        "--rest-port": settings.hub_rest_port,
        "--certificate": settings.pki_dir / "hub.pem",
        "--key": settings.pki_dir / "hub.key",
        "--client-ca": settings.pki_dir / "ca.pem",
    }
    return [str(part) for pair in given.items() for part in pair]


def _as_environment(settings: Settings) -> dict[str, str]:
    """The settings for the child: what our flags say must win over its environment and file."""
    values = settings.model_dump(mode="json", exclude={"server_names"})
    given = {f"{ENVIRONMENT_PREFIX}{name.upper()}": str(value) for name, value in values.items()}
    return given | {f"{ENVIRONMENT_PREFIX}SERVER_NAMES": ",".join(settings.server_names)}


def _wait_until_healthy(children: Children, settings: Settings, stop: _Stop) -> bool:
    """Whether all is well; False when somebody stopped us before. Raises ChildEndedError or NotHealthyError."""
    deadline = time.monotonic() + HEALTHY_S
    wrong = "no answer"
    while time.monotonic() < deadline:
        if stop.signal_number:
            return False
        children.check()
        try:
            states = check(settings)
        except NotHealthyError as error:
            wrong = error.message
        else:
            wrong = ", ".join(f"{name} {state}" for name, state in states.items() if state != OK)
            if not wrong:
                return True
        time.sleep(_POLL_S)
    raise NotHealthyError(
        f"Expected hub and coordinator to be well within {HEALTHY_S:.0f} s: {wrong}", hint=f"Logs: {settings.logs_dir}"
    )
