"""The hub and Mosquitto as programs of a bench: both over TLS with the same certificates, ended with the bench."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloud.hubs.iothub import IotHubFleet
from cloud.localhub.policies import connection_string
from cloud.pki.authority import Authority, ensure_server_certificate, load_or_create_authority
from cloud.pki.certificates import pem_of
from shared.ids import DeviceId
from simulations.bench.errors import BenchError
from simulations.bench.programs import HOST, STOP_S, free_port

_START_S = 30.0
_LIFE_DAYS = 1.0
_AT_ONCE = 32

_MOSQUITTO = """\
listener {port} {host}
protocol mqtt
cafile {folder}/ca.pem
certfile {folder}/server.pem
keyfile {folder}/server.key
require_certificate true
allow_anonymous true
persistence false
max_queued_messages 0
set_tcp_nodelay true
log_dest none
user {user}
"""


@dataclass(frozen=True)
class Broker:
    """One program that speaks MQTT over TLS."""

    process: psutil.Process
    port: int
    rest: str = ""
    """Of our hub: the connection string of its service API."""

    def rss_mb(self) -> float:
        """Resident memory, in MB (10^6 bytes)."""
        return float(self.process.memory_info().rss) / 1e6

    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def make_credentials(folder: Path, names: Sequence[str]) -> None:
    """A CA, the server's certificate, and one for each device, as files of the folder."""
    now = time.time()
    authority = load_or_create_authority(folder, now=now)
    ensure_server_certificate(authority, folder, "server", names=[HOST], now=now)
    for name in names:
        _make_credential(authority, folder, name, now=now)


def _make_credential(authority: Authority, folder: Path, name: str, *, now: float) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    certificate = authority.sign_device_request(pem, device_id=DeviceId(name), now=now, life_days=_LIFE_DAYS)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    (folder / f"{name}.pem").write_text(pem_of(certificate))


@contextmanager
def our_hub(folder: Path, data: Path, names: Sequence[str]) -> Iterator[Broker]:
    """`fleetlearn hub serve` on fresh data, with these devices registered."""
    port, rest_port = free_port(), free_port()
    files = ["--certificate", str(folder / "server.pem"), "--key", str(folder / "server.key")]
    ports = ["--address", HOST, "--mqtt-port", str(port), "--rest-port", str(rest_port)]
    command = [sys.executable, "-m", "cloud.localhub", "serve", "--data", str(data), *ports, *files]
    command += ["--client-ca", str(folder / "ca.pem")]
    with _program(command, port, log=data.with_suffix(".log")) as process:
        rest = connection_string(data, hostname=f"{HOST}:{rest_port}")
        asyncio.run(_register(rest, folder / "ca.pem", names))
        yield Broker(process, port, rest)


@contextmanager
def mosquitto(folder: Path) -> Iterator[Broker]:
    """Mosquitto without persistence. Raises BenchError where it is not installed."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchError(
            "Expected the broker Mosquitto on this machine, found none",
            hint="On Debian: apt-get install mosquitto. The bench starts one of its own; no service has to run.",
        )
    port, configuration = free_port(), folder / "mosquitto.conf"
    user = "root" if os.geteuid() == 0 else "mosquitto"  # As root it would drop rights, and not read the keys.
    configuration.write_text(_MOSQUITTO.format(port=port, host=HOST, folder=folder, user=user))
    with _program([program, "-c", str(configuration)], port, log=folder / "mosquitto.log") as process:
        yield Broker(process, port)


async def _register(rest: str, ca_file: Path, names: Sequence[str]) -> None:
    fleet = IotHubFleet(rest, ca_file=ca_file)
    room = asyncio.Semaphore(_AT_ONCE)

    async def add(name: str) -> None:
        async with room:
            await fleet.add_device(DeviceId(name))

    try:
        await asyncio.gather(*(add(name) for name in names))
    finally:
        await fleet.close()


@contextmanager
def _program(command: Sequence[str], port: int, *, log: Path) -> Iterator[psutil.Process]:
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        _wait_for_port(started, port, log)
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        try:
            started.wait(STOP_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(STOP_S)


def _wait_for_port(started: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and started.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    tail = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    raise BenchError(f"Expected a broker to listen on port {port}, got: {tail[:500]}")
