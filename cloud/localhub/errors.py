"""What the outside can do wrong to the hub. The hub is self-contained, so its family of errors has its own root."""

from typing import ClassVar


class LocalHubError(Exception):
    """The base of the hub's family; `code` is stable."""

    code: ClassVar[str] = "local_hub_error"


class MqttError(LocalHubError):
    """A client broke MQTT 3.1.1; only its connection ends."""

    code = "mqtt_error"


class AmqpError(LocalHubError):
    """A client broke AMQP 1.0, or asked for what is not there; only its connection ends."""

    code = "amqp_error"


class RefusedError(LocalHubError):
    """A device did not prove who it is, or may not connect."""

    code = "refused"


class DataFolderBusyError(LocalHubError):
    """Another hub already works on this data folder."""

    code = "data_folder_busy"


class StartError(LocalHubError):
    """The hub cannot start as it was told to."""

    code = "start_error"


class StoreMismatchError(LocalHubError):
    """The data folder's store is not what the hub was told to open."""

    code = "store_mismatch"


class ServiceError(LocalHubError):
    """A request that IoT Hub answers with an error: its HTTP status, numeric code and name.

    Args:
        status: The HTTP status.
        number: IoT Hub's number of the error, such as 404001.
        name: IoT Hub's name of the error, such as `DeviceNotFound`.
        message: What was expected and what came, one sentence.
        retry_after_s: When it may be worth another try.
    """

    code = "service_error"

    def __init__(
        self, status: int, number: int, name: str, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.number = number
        self.name = name


def invalid_argument(message: str) -> ServiceError:
    """A request the hub cannot make sense of."""
    return ServiceError(400, 400004, "ArgumentInvalid", message)


def unauthorized(message: str) -> ServiceError:
    """A caller whose token is wrong, expired or lacks the right."""
    return ServiceError(401, 401002, "IotHubUnauthorizedAccess", message)


def device_not_found(device_id: str) -> ServiceError:
    """No such identity."""
    return ServiceError(404, 404001, "DeviceNotFound", f"Device {device_id} not registered")


def device_exists(device_id: str) -> ServiceError:
    """The identity exists already, and the request did not say that it updates it."""
    return ServiceError(409, 409001, "DeviceAlreadyExists", f"A device with ID '{device_id}' is already registered")


def too_many_devices(devices_max: int) -> ServiceError:
    """The registry is full."""
    message = f"Expected at most {devices_max} devices, got one more"
    return ServiceError(403, 403004, "DeviceMaximumQuotaExceeded", message)


def precondition_failed(expected: str, current: str) -> ServiceError:
    """The ETag of the request is not the current one."""
    return ServiceError(412, 412001, "PreconditionFailed", f"Expected ETag {current!r}, got {expected!r}")


def module_not_found(key: str) -> ServiceError:
    """No such module of this device."""
    device_id, _, module_id = key.partition("/")
    return ServiceError(404, 404010, "ModuleNotFound", f"Module {module_id} on device {device_id} not registered")


def module_exists(key: str) -> ServiceError:
    """The device has that module already, and the request did not say that it updates it."""
    device_id, _, module_id = key.partition("/")
    message = f"A module with ID '{module_id}' on device '{device_id}' is already registered"
    return ServiceError(409, 409301, "ModuleAlreadyExistsOnDevice", message)


def lock_lost(what: str) -> ServiceError:
    """The lock on what was received has run out, or never was the caller's."""
    return ServiceError(
        412, 412002, "DeviceMessageLockLost", f"Expected the lock on {what}, but it ran out or was lost"
    )


def group_not_found(group: str) -> ServiceError:
    """No such consumer group."""
    return ServiceError(404, 404021, "ConsumerGroupNotFound", f"Consumer group {group[:80]!r} does not exist")


def partition_not_found(partition: int, *, partitions: int) -> ServiceError:
    """The log has fewer partitions."""
    message = f"Expected a partition of 0 to {partitions - 1}, got {partition}"
    return ServiceError(404, 404022, "PartitionNotFound", message)


def check_etag(wanted: str, current: str) -> None:
    """Returns where the ETag a request wants is the current one, or `*`. Raises ServiceError."""
    if wanted not in ("*", current):
        raise precondition_failed(wanted[:80], current)


def configuration_not_found(configuration_id: str) -> ServiceError:
    """No such configuration."""
    message = f"Configuration {configuration_id[:128]} does not exist"
    return ServiceError(404, 404011, "ConfigurationNotFound", message)


def configuration_exists(configuration_id: str) -> ServiceError:
    """The configuration exists already, and the request did not say that it updates it."""
    message = f"A configuration with ID '{configuration_id[:128]}' already exists"
    return ServiceError(409, 409010, "ConfigurationAlreadyExists", message)


def job_not_found(job_id: str) -> ServiceError:
    """No such job."""
    return ServiceError(404, 404012, "JobNotFound", f"Job {job_id[:128]} does not exist")


def job_exists(job_id: str) -> ServiceError:
    """The job exists already; a job is never changed."""
    return ServiceError(409, 409005, "JobAlreadyExists", f"A job with ID '{job_id[:128]}' already exists")
