"""Picks the adapters: the only place that knows which database, file system and hub the settings mean."""

import secrets
import time

from cloud.auth.nonces import Nonces, load_or_create_nonce_key
from cloud.blobs.store import BlobStore
from cloud.db import SessionFactory, open_engine, session_factory
from cloud.hubs.iothub import IotHubFleet
from cloud.localhub.policies import connection_string
from cloud.pki.authority import load_or_create_authority
from cloud.releases.repository import TufRepository
from cloud.services import Services
from cloud.settings import Settings
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
        hub=open_hub(settings),
        authority=load_or_create_authority(settings.pki_dir, now=time.time()),
        nonces=Nonces(load_or_create_nonce_key(settings.pki_dir / "nonce.key")),
        tuf_repository=TufRepository(settings.tuf_dir),
        now=time.time,
        new_id=new_id,
    )


def open_sessions(settings: Settings) -> SessionFactory:
    """SQLite in the data folder, or the database of the URL."""
    return session_factory(open_engine(settings.database))


def open_blobs(settings: Settings) -> BlobStore:
    """Objects in the data folder, or where the URL says."""
    return BlobStore(settings.blobs)


def open_hub(settings: Settings) -> FleetHub:
    """A new connection to the hub of the connection string, or to the local hub of the data folder."""
    if settings.hub_connection_string:
        return IotHubFleet(settings.hub_connection_string, ca_file=None)
    hostname = f"{settings.host}:{settings.hub_rest_port}"
    local = connection_string(settings.hub_dir, hostname=hostname)
    return IotHubFleet(local, ca_file=settings.pki_dir / "ca.pem")


def new_id() -> str:
    """A fresh UUID version 7."""
    return uuid7(unix_ms=time.time_ns() // 1_000_000, random_bytes=secrets.token_bytes(10))
