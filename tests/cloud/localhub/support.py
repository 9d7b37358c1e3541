"""A certificate authority and a hub process for tests."""

import asyncio
import contextlib
import datetime
import ipaddress
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.localhub import codec
from cloud.localhub.limits import Limits
from cloud.localhub.policies import connection_string
from cloud.localhub.server import RunningHub, Settings, running

START_S = 20.0
REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Credential:
    certificate_file: Path
    key_file: Path


class Authority:
    """A CA in a folder, which issues certificates for a hub or a device."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
        self.ca_file = folder / "ca.pem"
        certificate = builder.sign(self._key, hashes.SHA256())
        self.ca_pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.ca_file.write_text(self.ca_pem)

    def issue(
        self, name: str, *, address: str | None = None, expired: bool = False, file_name: str | None = None
    ) -> Credential:
        """A server's credential where there is an address, else a device's."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), expired=expired)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if address is None else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if address is not None:
            names = [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("localhost")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = file_name or name
        made = Credential(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        made.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return made

    def issued(self, name: str) -> Credential:
        """A credential that was issued before."""
        return Credential(self._folder / f"{name}.pem", self._folder / f"{name}.key")

    def context(self) -> ssl.SSLContext:
        """How a client trusts this CA alone."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        end = now - datetime.timedelta(hours=1) if expired else now + datetime.timedelta(days=1)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(end)
            .add_extension(identifier, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


@dataclass
class HubProcess:
    """`fleetlearn hub serve` as a process of its own, on a loopback address of its own."""

    authority: Authority
    data_dir: Path
    address: str
    credential: Credential
    rest_port: int = 0
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    log: list[str] = field(default_factory=list)

    @property
    def hostname(self) -> str:
        return self.address

    @property
    def service(self) -> str:
        return f"{self.address}:{self.rest_port}"

    def connection_string(self, policy: str = "iothubowner") -> str:
        return connection_string(self.data_dir, hostname=self.service, policy=policy)

    def start(self) -> None:
        """Starts the process and waits until it says that it listens."""
        command = [sys.executable, "-m", "cloud.localhub", "serve", "--data", str(self.data_dir)]
        command += ["--address", self.address, "--rest-port", str(self.rest_port)]
        command += ["--certificate", str(self.credential.certificate_file), "--key", str(self.credential.key_file)]
        command += ["--client-ca", str(self.authority.ca_file), *self.options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=REPOSITORY)
        self.rest_port = int(wait_for_event(self.process, "hub_started")["rest_port"])

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self) -> int:
        assert self.process is not None
        assert self.process.stderr is not None
        code = self.process.wait(timeout=START_S)
        self.process.stderr.close()
        self.process = None
        return code


def wait_for_event(process: subprocess.Popen[bytes], event: str) -> dict[str, str]:
    """The log line that says so. Raises AssertionError where the process ends, or the time does, without it."""
    assert process.stderr is not None
    deadline, buffer = time.monotonic() + START_S, b""
    descriptor = process.stderr.fileno()
    while time.monotonic() < deadline:
        ready, _, _ = select.select([descriptor], [], [], 0.2)
        chunk = os.read(descriptor, 65_536) if ready else b""
        buffer += chunk
        for line in buffer.decode().splitlines():
            if f'"{event}"' in line and line.endswith("}"):
                return dict(json.loads(line))
        if ready and not chunk:
            break
    raise AssertionError(f"the process did not say {event}: {buffer.decode()}")


@contextmanager
def hub_process(folder: Path, address: str, *options: str) -> Iterator[HubProcess]:
    """A running hub on the address; killed at the end if it still runs."""
    authority = Authority(folder / "ca")
    credential = authority.issue("hub", address=address)
    hub = HubProcess(authority, folder / "hub", address, credential, options=options)
    hub.start()
    try:
        yield hub
    finally:
        if hub.process is not None:
            hub.kill()


def may_bind(address: str, port: int) -> bool:
    """Whether this process may listen there: ports below 1024 need a right."""
    try:
        with socket.create_server((address, port)):
            return True
    except PermissionError:
        return False


async def eventually(check, *, timeout_s: float = 10.0) -> None:  # type: ignore[no-untyped-def]  # any callable
    """Polls until the check is true."""
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


class RawDevice:
    """A device that speaks MQTT byte by byte, for what a proper client never does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = codec.Decoder(packet_bytes_max=1_000_000)
        self._packets: list[codec.Packet] = []

    @classmethod
    async def dial(
        cls, authority: Authority, address: str, port: int, credential: Credential | None = None
    ) -> "RawDevice":
        """TLS alone; raises ssl.SSLError or OSError where it fails."""
        context = ssl.create_default_context(cafile=str(authority.ca_file))
        if credential is not None:
            context.load_cert_chain(credential.certificate_file, credential.key_file)
        return cls(*await asyncio.open_connection(address, port, ssl=context))

    async def connect(self, device_id: str, *, token: str | None = None, host: str = "hub", **fields: Any) -> int:
        """Sends CONNECT; the return code of the answer."""
        username = f"{host}/{device_id}/?api-version=2021-04-12"
        password = None if token is None else token.encode()
        await self.send(codec.Connect(device_id, username=username, password=password, **fields))
        answer = await self.receive()
        assert isinstance(answer, codec.ConnAck)
        return answer.return_code

    async def send(self, packet: codec.Packet) -> None:
        self.writer.write(codec.encode(packet))
        await self.writer.drain()

    async def receive(self, *, timeout_s: float = 10.0) -> codec.Packet | None:
        """The next packet, or None at the end of the connection."""
        async with asyncio.timeout(timeout_s):
            while not self._packets:
                try:
                    data = await self.reader.read(65_536)
                except (ssl.SSLError, ConnectionError):
                    return None
                if not data:
                    return None
                self._packets.extend(self._decoder.feed(data))
        return self._packets.pop(0)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def hub_here(
    folder: Path, address: str, *, limits: Limits | None = None, mqtt_port: int = 0, rest_port: int = 0
) -> AsyncIterator[tuple[RunningHub, Authority]]:
    """A hub in this process, on ports that the system chooses where none are given."""
    authority = Authority(folder / "ca")
    credential = authority.issue("hub", address=address)
    settings = Settings(
        data_dir=folder / "hub",
        certificate=credential.certificate_file,
        key=credential.key_file,
        client_ca=authority.ca_file,
        address=address,
        mqtt_port=mqtt_port,
        rest_port=rest_port,
        limits=limits or Limits(),
    )
    async with running(settings) as live:
        yield live, authority
