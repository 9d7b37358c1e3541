"""Makes a data folder ready: CA, certificates, keys, policies, release repository, database. Twice does no harm."""

from pathlib import Path

from cloud.auth.nonces import load_or_create_nonce_key
from cloud.auth.operators import ensure_first_token
from cloud.compose import open_sessions
from cloud.localhub.policies import load_or_create_policies
from cloud.migrations.upgrade import upgrade_database
from cloud.pki.authority import (
    Authority,
    ensure_client_certificate,
    ensure_server_certificate,
    load_or_create_authority,
)
from cloud.releases.repository import init_repository
from cloud.settings import FILE_NAME, Settings
from shared.files import write_atomically
from shared.hub.mqtt.address import BrokerAddress
from shared.hub.mqtt.topics import COORDINATOR

SERVERS = ("hub", "coordinator")
BROKER, BROKER_CLIENT = "broker", "broker-client"


def prepare(settings: Settings, *, now: float) -> None:
    """Makes what is missing, below `data_dir`, and brings an older database to the present.

    The offline keys are made with the repository; where an operator has moved them away, they are not missed.
    """
    make_folders(settings)
    _remember_where(settings)
    authority = load_or_create_authority(settings.pki_dir, now=now)
    ensure_server_certificates(authority, settings, now=now)
    load_or_create_nonce_key(settings.pki_dir / "nonce.key")
    load_or_create_policies(settings.hub_dir)
    init_repository(settings.tuf_dir, offline_keys_dir=settings.offline_keys_dir, now=now)
    upgrade_database(settings.database)
    ensure_first_token(open_sessions(settings), settings.operator_token_file, now=now)


def ensure_server_certificates(authority: Authority, settings: Settings, *, now: float) -> list[str]:
    """Makes the servers' certificates where they are missing or near their end; returns whose were made."""
    names = list(dict.fromkeys([settings.address, *settings.server_names]))
    if settings.hub:
        _ensure_broker_certificates(authority, settings, now=now)
    return [
        server
        for server in SERVERS
        if ensure_server_certificate(authority, settings.pki_dir, server, names=names, now=now)
    ]


def _ensure_broker_certificates(authority: Authority, settings: Settings, *, now: float) -> None:
    """The coordinator's own towards the broker, and one that the broker may use, unless it has another CA's."""
    ensure_client_certificate(authority, settings.pki_dir, BROKER_CLIENT, common_name=COORDINATOR, now=now)
    if not settings.hub_ca_file:
        dialled = [BrokerAddress.parse(url).host for url in (settings.hub, settings.device_hub)]
        names = list(dict.fromkeys([*dialled, *settings.server_names]))
        ensure_server_certificate(authority, settings.pki_dir, BROKER, names=names, now=now)


def make_folders(settings: Settings) -> None:
    """The data folder, for its owner alone, and the folders in it."""
    private = (settings.data_dir, settings.pki_dir, settings.offline_keys_dir, settings.hub_dir)
    for folder in (*private, settings.jobs_dir, settings.logs_dir, settings.uploads_dir):
        _make_private(folder)


def _remember_where(settings: Settings) -> None:
    """The first start's address and ports, for the next start and for commands with `--data`."""
    path = settings.data_dir / FILE_NAME
    if path.exists():
        return
    lines = [
        "# Written at the first start; yours to change. Every setting: docs/reference/settings.md",
        f'address = "{settings.address}"',
        f"port = {settings.port}",
        f"hub_rest_port = {settings.hub_rest_port}",
        f"mqtt_port = {settings.mqtt_port}",
    ]
    write_atomically(path, ("\n".join(lines) + "\n").encode(), mode=0o600)


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
