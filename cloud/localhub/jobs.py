"""Scheduled jobs as values: what a request asks for, the states a job and its devices go through, the JSON forms. Pure.

A job updates the twins of, or calls a direct method on, all that fulfil its condition when it starts.
https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-jobs
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cloud.localhub import twins
from cloud.localhub.configurations import parse_target
from cloud.localhub.devices import check_device_id
from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.methods import parse_method, whole_of
from cloud.localhub.times import iso

MAX_EXECUTION_S = (1, 7 * 24 * 3600)
_MAX_EXECUTION_DEFAULT_S = 3600


class JobType(StrEnum):
    UPDATE_TWIN = "scheduleUpdateTwin"
    METHOD = "scheduleDeviceMethod"


class JobStatus(StrEnum):
    """SCHEDULED waits for its time, QUEUED for its turn."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DeviceStatus(StrEnum):
    """Of one device in one job, in IoT Hub's words, which spell the last one differently."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
_COUNTS = {
    "deviceCount": tuple(DeviceStatus),
    "failedCount": (DeviceStatus.FAILED, DeviceStatus.CANCELED),
    "succeededCount": (DeviceStatus.COMPLETED,),
    "runningCount": (DeviceStatus.RUNNING,),
    "pendingCount": (DeviceStatus.PENDING,),
}


@dataclass(frozen=True)
class Job:
    """One stored job. `body` is the twin's patch or the method's call; times are seconds since the epoch."""

    id: str
    type: JobType
    condition: str
    body: dict[str, Any]
    created_at: float
    start_at: float
    max_execution_s: int
    status: JobStatus
    ended_at: float | None = None
    failure_reason: str | None = None

    @property
    def deadline(self) -> float:
        return self.start_at + self.max_execution_s

    def dumps(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> "Job":
        stored = json.loads(text)
        return cls(**(stored | {"type": JobType(stored["type"]), "status": JobStatus(stored["status"])}))


def parse_job(job_id: str, body: Mapping[str, Any], *, now: float) -> Job:
    """The job that a PUT of this body asks for. Raises ServiceError."""
    check_device_id(job_id)
    type_ = body.get("type")
    if type_ not in set(JobType):
        raise invalid_argument(f"Expected type of {', '.join(JobType)}, got {str(type_)[:40]!r}")
    condition = body.get("queryCondition")
    if not isinstance(condition, str) or parse_target(condition).source is None:
        raise invalid_argument("Expected queryCondition as a condition on devices, or * for all of them")
    max_execution_s = whole_of(
        body, "maxExecutionTimeInSeconds", default=_MAX_EXECUTION_DEFAULT_S, bounds=MAX_EXECUTION_S
    )
    start_at = _time(body.get("startTime"), default=now)
    return Job(
        id=job_id,
        type=JobType(type_),
        condition=condition,
        body=_twin_patch(body) if type_ == JobType.UPDATE_TWIN else _method(body),
        created_at=now,
        start_at=start_at,
        max_execution_s=max_execution_s,
        status=JobStatus.SCHEDULED if start_at > now else JobStatus.QUEUED,
    )


def service_form(job: Job, counts: Mapping[str, int]) -> dict[str, Any]:
    """The job as the service API answers it; `counts` are of its devices, by status."""
    body_name = "updateTwin" if job.type is JobType.UPDATE_TWIN else "cloudToDeviceMethod"
    statistics = {name: sum(counts.get(each, 0) for each in statuses) for name, statuses in _COUNTS.items()}
    form = {
        "jobId": job.id,
        "type": job.type,
        "status": job.status,
        "queryCondition": job.condition,
        "createdTime": iso(job.created_at),
        "startTime": iso(job.start_at),
        "maxExecutionTimeInSeconds": job.max_execution_s,
        body_name: job.body,
        "deviceJobStatistics": statistics,
    }
    ended = {} if job.ended_at is None else {"endTime": iso(job.ended_at)}
    return form | ended | ({} if job.failure_reason is None else {"failureReason": job.failure_reason})


def device_form(job: Job, key: str, status: DeviceStatus, *, now: float) -> dict[str, Any]:
    """One device's part in a job, as `devices.jobs` has it, without its outcome."""
    device_id, _, module_id = key.partition("/")
    has_ended = status not in (DeviceStatus.PENDING, DeviceStatus.RUNNING)
    return {
        "deviceId": device_id,
        **({"moduleId": module_id} if module_id else {}),
        "jobId": job.id,
        "jobType": job.type,
        "status": status,
        "createdDateTimeUtc": iso(job.created_at),
        "startTimeUtc": iso(job.start_at),
        **({"endTimeUtc": iso(now)} if has_ended else {}),
        "lastUpdatedDateTimeUtc": iso(now),
    }


def error_form(error: ServiceError) -> dict[str, Any]:
    """What the part of a device that failed says besides."""
    return {"error": {"code": str(error.number), "description": str(error)}}


def _twin_patch(body: Mapping[str, Any]) -> dict[str, Any]:
    update = body.get("updateTwin")
    if not isinstance(update, dict):
        raise invalid_argument("Expected updateTwin as an object with tags and desired properties")
    parts = twins.parts_of(update)
    if not parts:
        raise invalid_argument("Expected tags or desired properties in updateTwin, got neither")
    tags = {"tags": parts["tags"]} if "tags" in parts else {}
    return tags | ({"properties": {"desired": parts["desired"]}} if "desired" in parts else {})


def _method(body: Mapping[str, Any]) -> dict[str, Any]:
    call = body.get("cloudToDeviceMethod")
    if not isinstance(call, dict):
        raise invalid_argument("Expected cloudToDeviceMethod as an object with a methodName")
    parse_method(call)
    return call


def _time(value: object, *, default: float) -> float:
    if value is None or value == "":
        return default
    try:
        told = datetime.fromisoformat(str(value))
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise invalid_argument(f"Expected startTime in ISO 8601, got {str(value)[:40]!r}") from error
