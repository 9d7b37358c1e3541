"""A real Mosquitto for tests: TLS, certificates, our access list, no persistence at all; killed and started at will.

Skipped, with the reason, where it is not installed; fails instead where `CI=true`.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud.db import open_engine, session_factory
from cloud.hubs.mqtt.acl import mosquitto as acl
from cloud.hubs.mqtt.store import MqttStore
from cloud.migrations.upgrade import upgrade_database
from shared.hub.mqtt.address import BrokerAddress
from shared.hub.mqtt.connection import Credential
from shared.hub.mqtt.topics import COORDINATOR
from tests.cloud.localhub.support import Authority

FLEET = "plant-7"
COORDINATOR_PORT = 8884
_START_S = 20.0


def mosquitto_program() -> str:
    """Its path. Skips or fails the test that asks where there is none."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        reason = "no mosquitto; on Debian: apt-get install mosquitto mosquitto-clients"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Mosquitto:
    """One broker on one loopback address: devices on 8883, where the client id is the name, coordinators on 8884."""

    def __init__(self, folder: Path, address: str, *, ca_file: Path, certificate_file: Path, key_file: Path) -> None:
        self.address = address
        self._folder = folder
        self._program = mosquitto_program()
        self._process: subprocess.Popen[bytes] | None = None
        tls = f"cafile {ca_file}\ncertfile {certificate_file}\nkeyfile {key_file}\n"
        tls += "require_certificate true\nuse_identity_as_username true\n"
        (folder / "acl").write_text(acl(FLEET))
        user = "user root\n" if os.geteuid() == 0 else ""
        (folder / "mosquitto.conf").write_text(
            f"{user}persistence false\nacl_file {folder / 'acl'}\nset_tcp_nodelay true\n"
            "max_inflight_messages 1000\nmax_queued_messages 20000\n"
            f"listener 8883 {address}\n{tls}use_username_as_clientid true\n"
            f"listener {COORDINATOR_PORT} {address}\n{tls}"
        )

    def url(self, *, port: int = 8883) -> str:
        return f"mqtts://{self.address}:{port}/{FLEET}"

    @property
    def for_devices(self) -> BrokerAddress:
        return BrokerAddress.parse(self.url())

    @property
    def for_coordinators(self) -> BrokerAddress:
        return BrokerAddress.parse(self.url(port=COORDINATOR_PORT))

    def start(self) -> None:
        """Returns when it listens."""
        with (self._folder / "mosquitto.log").open("ab") as log:
            command = [self._program, "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((self.address, COORDINATOR_PORT), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"mosquitto did not start: {self.log()}")

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=_START_S)
            self._process = None

    def log(self) -> str:
        return (self._folder / "mosquitto.log").read_text(errors="replace")


@contextmanager
def running_mosquitto(
    folder: Path, address: str, *, ca_file: Path, certificate_file: Path, key_file: Path
) -> Iterator[Mosquitto]:
    """Killed at the end if it still runs."""
    broker = Mosquitto(folder, address, ca_file=ca_file, certificate_file=certificate_file, key_file=key_file)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@contextmanager
def own_mosquitto(folder: Path, address: str) -> Iterator[tuple[Mosquitto, Authority]]:
    """With a CA of its own, which issues the clients' certificates too."""
    authority = Authority(folder / "ca")
    mine = authority.issue("broker", address=address)
    files = {"certificate_file": mine.certificate_file, "key_file": mine.key_file}
    with running_mosquitto(folder, address, ca_file=authority.ca_file, **files) as broker:
        yield broker, authority


def migrated_store(folder: Path) -> MqttStore:
    """The coordinator's part, on a database in this folder."""
    url = f"sqlite:///{folder / 'coordinator.sqlite'}"
    upgrade_database(url)
    return MqttStore(session_factory(open_engine(url)), now=time.time)


def credential(authority: Authority, name: str = COORDINATOR) -> Credential:
    """A client's certificate with this common name."""
    issued = authority.issue(name)
    return Credential(issued.certificate_file, issued.key_file, authority.ca_pem)
