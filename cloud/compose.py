"""Picks the adapters: the only place that knows which database, file system and hub the settings mean."""

import random
import secrets
import time
from pathlib import Path

from cryptography import x509

from cloud.auth.nonces import Nonces, load_or_create_nonce_key
from cloud.blobs.store import BlobStore
from cloud.db import SessionFactory, open_engine, session_factory
from cloud.hubs.azure import AzureHub, open_azure
from cloud.hubs.iothub import IotHubFleet
from cloud.hubs.mqtt.fleet import MqttFleet
from cloud.hubs.mqtt.store import MqttStore
from cloud.localhub.policies import connection_string
from cloud.pki.authority import load_or_create_authority
from cloud.pki.certificates import key_fingerprint, public_key_of
from cloud.releases.repository import TufRepository
from cloud.services import Services
from cloud.settings import Settings
from shared.hub.mqtt.address import BrokerAddress
from shared.hub.mqtt.connection import Credential
from shared.hub.port import FleetHub
from shared.ids import uuid7

__all__ = ["Services", "build_services", "open_blobs", "open_hub", "open_sessions"]


def build_services(settings: Settings) -> Services:
    """Everything the coordinator works with, for a data folder that `cloud.first_start` prepared.

    Call it where an event loop runs: the connection to the hub belongs to that loop.
    """
    return Services(
        settings=settings,
        sessions=open_sessions(settings),
        blobs=open_blobs(settings),
        hub=open_hub(settings, replica=replica_of(settings)),
        authority=load_or_create_authority(settings.pki_dir, now=time.time()),
        nonces=Nonces(load_or_create_nonce_key(settings.pki_dir / "nonce.key")),
        tuf_repository=TufRepository(settings.tuf_dir),
        now=time.time,
        new_id=new_id,
    )


def replica_of(settings: Settings) -> str:
    """A name for this coordinator that lasts as long as its data folder, and that no other folder has."""
    if not settings.hub:
        return "local"
    certificate = x509.load_pem_x509_certificate((settings.pki_dir / "broker-client.pem").read_bytes())
    return key_fingerprint(public_key_of(certificate))[:16]


def open_sessions(settings: Settings) -> SessionFactory:
    """SQLite in the data folder, or the database of the URL."""
    return session_factory(open_engine(settings.database))


def open_blobs(settings: Settings) -> BlobStore:
    """Objects in the data folder, or where the URL says."""
    return BlobStore(settings.blobs)


def open_hub(settings: Settings, *, replica: str = "") -> FleetHub:
    """A new connection to the broker, to the hub of the connection string, or to the local hub of the data folder.

    Args:
        settings: Of this coordinator.
        replica: Behind a broker, who answers the devices; empty: this process only calls them.
    """
    if settings.hub:
        return open_broker(settings, replica=replica)
    if settings.hub_connection_string:
        return open_azure(
            AzureHub(
                settings.hub_connection_string,
                settings.hub_events,
                consumer_group=settings.hub_consumer_group,
                inbox_file=settings.hub_dir / "inbox.sqlite",
            )
        )
    hostname = f"{settings.host}:{settings.hub_rest_port}"
    local = connection_string(settings.hub_dir, hostname=hostname)
    return IotHubFleet(local, ca_file=settings.pki_dir / "ca.pem")


def open_broker(settings: Settings, *, replica: str) -> MqttFleet:
    """A new connection to the broker, by the certificate that `cloud.first_start` made."""
    ca_file = Path(settings.hub_ca_file) if settings.hub_ca_file else settings.pki_dir / "ca.pem"
    files = settings.pki_dir / "broker-client.pem", settings.pki_dir / "broker-client.key"
    return MqttFleet(
        address=BrokerAddress.parse(settings.hub),
        credential=Credential(*files, ca_file.read_text(encoding="ascii")),
        store=MqttStore(open_sessions(settings), now=time.time),
        replica=replica,
        rng=random.Random(secrets.randbits(64)),
    )


def new_id() -> str:
    """A fresh UUID version 7."""
    return uuid7(unix_ms=time.time_ns() // 1_000_000, random_bytes=secrets.token_bytes(10))
