"""The hub's shared access policies: who may call which part of the service API.

The names and rights are IoT Hub's defaults. Keys are made at the first start and kept in the data folder, readable by
its owner alone; whoever reads that file owns the fleet.
"""

import base64
import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cloud.localhub.errors import LocalHubError

EVENTS_NAME = "events"
"""What the hub's log is called as an Event Hub: the `EntityPath` of its connection strings."""
_FILE_NAME = "policies.json"
_KEY_BYTES = 32


class Right(StrEnum):
    """What a policy allows."""

    REGISTRY_READ = "RegistryRead"
    REGISTRY_WRITE = "RegistryWrite"
    SERVICE_CONNECT = "ServiceConnect"
    DEVICE_CONNECT = "DeviceConnect"


_RIGHTS: dict[str, tuple[Right, ...]] = {
    "iothubowner": (Right.REGISTRY_READ, Right.REGISTRY_WRITE, Right.SERVICE_CONNECT, Right.DEVICE_CONNECT),
    "service": (Right.SERVICE_CONNECT,),
    "device": (Right.DEVICE_CONNECT,),
    "registryRead": (Right.REGISTRY_READ,),
    "registryReadWrite": (Right.REGISTRY_READ, Right.REGISTRY_WRITE),
}


class PolicyError(LocalHubError):
    """The policies' file is damaged, or has no such policy."""

    code = "policy_error"


@dataclass(frozen=True)
class Policy:
    """One named pair of keys and its rights."""

    name: str
    primary_key: str
    secondary_key: str
    rights: frozenset[Right]

    @property
    def keys(self) -> tuple[str, str]:
        return (self.primary_key, self.secondary_key)


def load_or_create_policies(data_dir: Path) -> dict[str, Policy]:
    """The policies by name; makes the file (mode 0600) where there is none. Raises PolicyError for a damaged one."""
    path = data_dir / _FILE_NAME
    if not path.exists():
        _create(path)
    try:
        stored = json.loads(path.read_text())
        return {name: _policy(name, stored[name]) for name in _RIGHTS}
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"Expected the hub's policies in {path}, got a damaged file") from error


def connection_string(data_dir: Path, *, hostname: str, policy: str = "iothubowner") -> str:
    """What a service client connects with. `hostname` may carry a port: `localhost:8443`. Raises PolicyError."""
    return f"HostName={hostname};{_named_key(data_dir, policy)}"


def events_connection_string(data_dir: Path, *, hostname: str, policy: str = "service") -> str:
    """What a consumer of events connects with, by AMQP; the port is 5671. Raises PolicyError."""
    return f"Endpoint=sb://{hostname}/;{_named_key(data_dir, policy)};EntityPath={EVENTS_NAME}"


def _named_key(data_dir: Path, policy: str) -> str:
    policies = load_or_create_policies(data_dir)
    if policy not in policies:
        raise PolicyError(f"Expected a policy of {', '.join(policies)}, got {policy[:80]!r}")
    return f"SharedAccessKeyName={policy};SharedAccessKey={policies[policy].primary_key}"


def new_key() -> str:
    """A fresh random key in Base64."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def _policy(name: str, stored: dict[str, str]) -> Policy:
    return Policy(name, stored["primaryKey"], stored["secondaryKey"], frozenset(_RIGHTS[name]))


def _create(path: Path) -> None:
    """Writes fresh keys; of two processes that do it at once, the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = json.dumps({name: {"primaryKey": new_key(), "secondaryKey": new_key()} for name in _RIGHTS}, indent=2)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
