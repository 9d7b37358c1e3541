"""The coordinator's settings: read once at start from flags, the environment, a file and defaults, in that order.

Environment: `FLEETLEARN_` and the name in capitals. File: `settings.toml` in the data folder, one key for each setting.
Documented in docs/reference/settings.md; a test keeps that page complete.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cloud.errors import InvalidRequestError
from shared.hub.mqtt.address import BrokerAddress, BrokerAddressError

ENVIRONMENT_PREFIX = "FLEETLEARN_"
FILE_NAME = "settings.toml"


class InvalidSettingError(InvalidRequestError):
    """A setting that is unknown or has no such value."""

    code = "invalid_setting"


class Settings(BaseModel):
    """One coordinator's settings. Folders below `data_dir` are the properties at the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path
    """Folder of everything the coordinator keeps."""
    address: str = "127.0.0.1"
    """IP address to listen on; also the name in the server certificates and the address devices dial."""
    port: int = Field(default=8444, ge=1, le=65535)
    """HTTPS port of the coordinator."""
    hub_rest_port: int = Field(default=8443, ge=1, le=65535)
    """HTTPS port of the local hub's service API."""
    mqtt_port: int = Field(default=8883, ge=1, le=65535)
    """MQTT port of the local hub. Devices dial 8883: another one needs a port mapping in between."""
    public_url: str = ""
    """URL that enrolment tokens name; empty means https://ADDRESS:PORT."""
    server_names: tuple[str, ...] = ()
    """Further DNS names and IP addresses for the server certificates."""
    hub: str = ""
    """MQTT broker as `mqtts://HOST[:PORT][/FLEET]`; empty means an IoT Hub: Azure's, or the local one."""
    hub_for_devices: str = ""
    """The same broker as devices dial it, where that differs; empty means the same."""
    hub_ca_file: str = ""
    """PEM of the CA that signed the broker's certificate; empty means the fleet's own."""
    hub_connection_string: str = ""
    """Service connection string of an Azure IoT Hub, or its host name, which means an identity of Microsoft Entra ID;
    empty means the local hub of the data folder. A secret."""
    hub_events: str = ""
    """Azure only: connection string of the hub's Event Hubs-compatible endpoint, or `NAMESPACE/NAME` of it, which means
    an identity of Microsoft Entra ID. A secret."""
    hub_consumer_group: str = "$Default"
    """Azure only: the consumer group of the coordinator; nothing else may read with it."""
    hub_hostname: str = ""
    """Host that devices dial for the hub; empty means the address."""
    database_url: str = ""
    """`postgresql+psycopg://...`; empty means SQLite in the data folder. May hold a secret."""
    blobs_url: str = ""
    """Where objects are kept, as fsspec names it (`abfs://`, `s3://`); empty means the data folder."""
    certificate_days: float = Field(default=90, gt=0, le=825)
    """How long a device's certificate lives; devices renew at two thirds of it."""
    heartbeat_s: float = Field(default=10, gt=0)
    """How often agents send a heartbeat; a device is online when it was seen within three."""
    upload_bytes_max: int = Field(default=256 * 1024 * 1024, gt=0)
    """Largest object a device may upload."""
    body_bytes_max: int = Field(default=16 * 1024 * 1024, gt=0)
    """Largest body of one request, an upload's chunk included."""
    job_restarts_max: int = Field(default=3, ge=0)
    """How often a job whose process died is started again before it has failed."""
    campaigns_max: int = Field(default=4, ge=1)
    """Most campaigns that run at a time; each is a process, and further ones wait."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important log lines that are written."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or text for people."""

    @field_validator("hub", "hub_for_devices")
    @classmethod
    def _is_broker(cls, url: str) -> str:
        try:
            return str(BrokerAddress.parse(url)) if url else ""
        except BrokerAddressError as error:
            raise ValueError(error.message) from None

    @model_validator(mode="after")
    def _is_one_hub(self) -> Self:
        if self.hub and self.hub_connection_string:
            raise ValueError("give hub or hub_connection_string, not both")
        if self.hub_for_devices and not self.hub:
            raise ValueError("hub_for_devices is an MQTT broker's; give hub too")
        return self

    @property
    def has_local_hub(self) -> bool:
        return not self.hub and not self.hub_connection_string

    @property
    def device_hub(self) -> str:
        """The broker's URL for devices; empty where the hub is none."""
        return self.hub_for_devices or self.hub

    @property
    def pki_dir(self) -> Path:
        return self.data_dir / "pki"

    @property
    def hub_dir(self) -> Path:
        return self.data_dir / "hub"

    @property
    def tuf_dir(self) -> Path:
        return self.data_dir / "tuf"

    @property
    def offline_keys_dir(self) -> Path:
        return self.data_dir / "offline-keys"

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"

    @property
    def flower_apps_dir(self) -> Path:
        """Flower apps that are installed here, a folder each: only these run as campaigns."""
        return self.data_dir / "flower-apps"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def uploads_dir(self) -> Path:
        return self.data_dir / "uploads"

    @property
    def operator_token_file(self) -> Path:
        return self.data_dir / "operator.token"

    @property
    def url(self) -> str:
        return self.public_url or f"https://{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """The address as it stands in a URL."""
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def device_hub_hostname(self) -> str:
        return self.hub_hostname or self.address

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'coordinator.sqlite'}"

    @property
    def blobs(self) -> str:
        return self.blobs_url or str(self.data_dir / "blobs")


def read_settings(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The settings of this process. Raises InvalidSettingError.

    Args:
        flags: Settings of the command line by name; None means not given. `Any`: parsed here.
        environment: Usually `os.environ`; only our prefix is looked at.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    from_environment = {
        name: _split(name, environment[f"{ENVIRONMENT_PREFIX}{name.upper()}"])
        for name in Settings.model_fields
        if f"{ENVIRONMENT_PREFIX}{name.upper()}" in environment
    }
    data_dir = Path(str(given.get("data_dir") or from_environment.get("data_dir") or "fleetlearn-data")).resolve()
    merged = _read_file(data_dir / FILE_NAME) | from_environment | given | {"data_dir": data_dir}
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "hub"
        raise InvalidSettingError(f"Expected a valid setting {name}: {first['msg']}") from None


def _split(name: str, text: str) -> str | list[str]:
    if Settings.model_fields[name].annotation == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _read_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettingError(f"Expected TOML in {path}: {error}") from error
