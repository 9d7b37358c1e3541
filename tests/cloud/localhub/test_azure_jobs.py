"""The unmodified IoTHubJobManager against the local hub: twin updates and methods on many devices, now or later."""

import asyncio
import datetime
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edge_agent.hubs.iothub import IotHubDevice
from shared.hub.port import CommandReply
from shared.ids import DeviceId
from tests.cloud.localhub.azure import MARKS, Azure, failure
from tests.cloud.localhub.support import HubProcess, hub_process
from tests.support.waiting import wait_until

pytestmark = [*MARKS, pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")]
_PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), "127.0.0.103") as running:
        yield running


@pytest.fixture
def azure(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Azure:
    return Azure(hub, monkeypatch)


def _add(azure: Azure, device_id: str, line: int) -> None:
    from azure.iot.hub.models import Twin

    azure.registry.create_device_with_certificate_authority(device_id, "enabled")
    azure.registry.update_twin(device_id, Twin(tags={"line": line}))


def _update(job_id: str, condition: str, **more: Any) -> Any:
    from azure.iot.hub.models import JobRequest, Twin, TwinProperties

    twin = Twin(tags={"updated": job_id}, properties=TwinProperties(desired={"rate": 7}))
    return JobRequest(job_id=job_id, type="scheduleUpdateTwin", update_twin=twin, query_condition=condition, **more)


def _ended(azure: Azure, job_id: str) -> Any:
    """The job once it has ended."""

    def status() -> str:
        return str(azure.jobs.get_scheduled_job(job_id).status)

    is_ended = lambda: status() in ("completed", "failed", "cancelled")  # noqa: E731  # two lines in one
    wait_until(is_ended, timeout_s=_PATIENCE_S, otherwise=lambda: f"the job is {status()}")
    return azure.jobs.get_scheduled_job(job_id)


def _counts(job: Any) -> tuple[int, int, int, int]:
    counted = job.device_job_statistics
    return (counted.device_count, counted.succeeded_count, counted.failed_count, counted.pending_count)


@contextmanager
def _answering(hub: HubProcess, device_id: str) -> Iterator[list[Any]]:
    """A connected device that answers every method, in a thread; the payloads that it got."""
    got: list[Any] = []
    connected, stop = threading.Event(), threading.Event()

    async def answer(name: str, payload: Any) -> CommandReply:
        got.append(payload)
        return CommandReply(200, {"did": name})

    async def live() -> None:
        credential = hub.authority.issue(device_id)
        device = IotHubDevice(
            hostname=hub.address,
            device_id=DeviceId(device_id),
            certificate_file=credential.certificate_file,
            key_file=credential.key_file,
            ca_pem=hub.authority.ca_pem,
        )
        device.on_command(answer)
        await device.connect()
        connected.set()
        await asyncio.to_thread(stop.wait)
        await device.close()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        assert connected.wait(_PATIENCE_S)
        yield got
    finally:
        stop.set()
        thread.join(_PATIENCE_S)


def test_a_job_updates_the_twins_that_its_condition_selects(azure: Azure) -> None:
    for number in range(3):
        _add(azure, f"update-{number}", line=number)
    made = azure.jobs.create_scheduled_job(
        "update", _update("update", "STARTSWITH(deviceId, 'update-') AND tags.line > 0")
    )
    assert (made.job_id, made.type, made.status) == ("update", "scheduleUpdateTwin", "queued")
    ended = _ended(azure, "update")
    assert (ended.status, _counts(ended)) == ("completed", (2, 2, 0, 0))
    assert ended.end_time is not None
    updated = azure.query("SELECT deviceId, properties.desired.rate FROM devices WHERE tags.updated = 'update'")
    assert updated == [{"deviceId": "update-1", "rate": 7}, {"deviceId": "update-2", "rate": 7}]
    rows = azure.query(
        "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'update' AND devices.jobs.status = 'completed'"
    )
    assert [(row["deviceId"], row["jobType"]) for row in rows] == [
        (f"update-{n}", "scheduleUpdateTwin") for n in (1, 2)
    ]
    found = azure.jobs.query_scheduled_jobs("scheduleUpdateTwin", "completed")
    assert "update" in [item["jobId"] for item in found.items]


def test_a_method_job_calls_who_is_there_and_says_who_was_not(hub: HubProcess, azure: Azure) -> None:
    from azure.iot.hub.models import CloudToDeviceMethod, JobRequest

    for device_id in ("method-away", "method-here"):
        _add(azure, device_id, line=1)
    method = CloudToDeviceMethod(method_name="reboot", payload={"in": 5}, response_timeout_in_seconds=30)
    request = JobRequest(
        type="scheduleDeviceMethod",
        cloud_to_device_method=method,
        query_condition="deviceId IN ['method-here', 'method-away']",
        max_execution_time_in_seconds=60,
    )
    with _answering(hub, "method-here") as got:
        azure.jobs.create_scheduled_job("reboot", request)
        ended = _ended(azure, "reboot")
    assert (ended.status, _counts(ended)) == ("completed", (2, 1, 1, 0))
    assert got == [{"in": 5}]
    away, here = azure.query("SELECT * FROM devices.jobs WHERE jobId = 'reboot'")
    assert (away["status"], away["error"]["code"]) == ("failed", "404103")
    assert here["outcome"] == {"deviceMethodResponse": {"status": 200, "payload": {"did": "reboot"}}}


def test_a_job_for_later_waits_through_a_kill_and_one_that_is_cancelled_never_starts(
    hub: HubProcess, azure: Azure
) -> None:
    _add(azure, "later-1", line=1)
    now = datetime.datetime.now(datetime.UTC)
    soon, late = now + datetime.timedelta(seconds=3), now + datetime.timedelta(hours=1)
    later = azure.jobs.create_scheduled_job("soon", _update("soon", "deviceId = 'later-1'", start_time=soon))
    assert later.status == "scheduled"
    azure.jobs.create_scheduled_job("late", _update("late", "*", start_time=late))
    assert azure.jobs.cancel_scheduled_job("late").status == "cancelled"
    assert failure(azure.jobs.cancel_scheduled_job, "late") == (409, "JobAlreadyEnded")
    hub.kill()
    hub.start()
    assert _counts(_ended(azure, "soon")) == (1, 1, 0, 0)
    assert azure.registry.get_twin("later-1").tags["updated"] == "soon"
    assert azure.jobs.get_scheduled_job("late").status == "cancelled"


def test_a_job_that_cannot_be_is_refused(azure: Azure) -> None:
    from azure.iot.hub.models import JobRequest, Twin

    put = azure.jobs.create_scheduled_job
    put("once", _update("once", "deviceId = 'nobody'"))
    assert failure(put, "once", _update("once", "*")) == (409, "JobAlreadyExists")
    assert failure(put, "bad", _update("bad", "tags.line >")) == (400, "ArgumentInvalid")
    assert failure(put, "bad", _update("bad", "")) == (400, "ArgumentInvalid")
    assert failure(put, "bad", JobRequest(type="rebootDevice", query_condition="*")) == (400, "ArgumentInvalid")
    empty = JobRequest(type="scheduleUpdateTwin", update_twin=Twin(), query_condition="*")
    assert failure(put, "bad", empty) == (400, "ArgumentInvalid")
    assert failure(azure.jobs.get_scheduled_job, "bad") == (404, "JobNotFound")
    assert failure(azure.jobs.query_scheduled_jobs, "magic", None) == (400, "ArgumentInvalid")
