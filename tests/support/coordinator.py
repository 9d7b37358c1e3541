"""The coordinator in memory of one test: real services on a folder, the hub in memory, HTTP without a socket."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import APIRouter
from sqlalchemy import Engine
from sqlmodel import SQLModel

from cloud.app import create_app
from cloud.auth.nonces import Nonces
from cloud.auth.operators import ensure_first_token
from cloud.blobs.store import BlobStore
from cloud.compose import new_id
from cloud.db import open_engine, session_factory
from cloud.domains import routers
from cloud.pki.authority import load_or_create_authority
from cloud.releases.repository import TufRepository, init_repository
from cloud.services import Services
from cloud.settings import Settings
from shared.api.enrolment import EnrolmentToken
from shared.hub.memory import MemoryHub
from shared.ids import DeviceId, parse_device_id
from tests.support.http import AppClient

START = 1_800_000_000.0


@dataclass
class Clock:
    """Seconds since the epoch, moved by the test."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class TestCoordinator:
    """One coordinator, and what a test does with it."""

    __test__ = False

    services: Services
    memory: MemoryHub
    clock: Clock
    engine: Engine

    def client(self, parts: Iterable[APIRouter] | None = None) -> AppClient:
        """HTTP with all domains' routes; use it as a context manager, so that the hub lives in its loop."""
        app = create_app(self.services, routers() if parts is None else parts)
        return AppClient(app)

    @property
    def operator(self) -> dict[str, str]:
        """The header of the first operator."""
        return {"Authorization": f"Bearer {self.services.settings.operator_token_file.read_text().strip()}"}


def open_coordinator(folder: Path, *, database_url: str = "", **settings: object) -> TestCoordinator:
    """A coordinator on an empty folder, with all tables."""
    values = Settings.model_validate({"data_dir": folder, "database_url": database_url, **settings})
    init_repository(values.tuf_dir, offline_keys_dir=values.offline_keys_dir, now=START)
    engine = open_engine(values.database)
    SQLModel.metadata.create_all(engine)
    memory, clock = MemoryHub(random.Random(1)), Clock()
    services = Services(
        settings=values,
        sessions=session_factory(engine),
        blobs=BlobStore(values.blobs),
        hub=memory.fleet(),
        authority=load_or_create_authority(values.pki_dir, now=START),
        nonces=Nonces(b"k" * 32),
        tuf_repository=TufRepository(values.tuf_dir),
        now=clock,
        new_id=new_id,
    )
    ensure_first_token(services.sessions, values.operator_token_file, now=START)
    return TestCoordinator(services, memory, clock, engine)


@dataclass(frozen=True)
class Machine:
    """A device to be: its name and its own key."""

    device_id: DeviceId
    key: ec.EllipticCurvePrivateKey

    def csr(self, *, name: str | None = None) -> str:
        """A certificate request for its own name, or for another."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name or self.device_id)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()


def machine(name: str = "press-07") -> Machine:
    return Machine(parse_device_id(name), ec.generate_private_key(ec.SECP256R1()))


def make_token(client: AppClient, coordinator: TestCoordinator, **request: object) -> str:
    """The secret of a fresh enrolment token."""
    answer = client.post("/v1/tokens", json=request, headers=coordinator.operator)
    assert answer.status_code == 201, answer.text
    return EnrolmentToken.decode(answer.json()["token"]).secret


def enrol(client: AppClient, coordinator: TestCoordinator, device: Machine) -> dict[str, str]:
    """Enrols the machine and returns the coordinator's answer."""
    secret = make_token(client, coordinator)
    body = {"secret": secret, "device_id": device.device_id, "csr_pem": device.csr()}
    answer = client.post("/v1/enrol", json=body)
    assert answer.status_code == 200, answer.text
    enrolled: dict[str, str] = answer.json()
    return enrolled
