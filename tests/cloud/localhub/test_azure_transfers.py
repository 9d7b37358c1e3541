"""The unmodified IoTHubJobManager's import and export jobs, with a container that takes and gives blobs by HTTP."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud.localhub.azure import MARKS, Azure, failure
from tests.cloud.localhub.support import HubProcess, hub_process
from tests.support.waiting import wait_until

pytestmark = MARKS
_PATIENCE_S = 20.0
_SIGNATURE = "sv=2021&sig=abc%2B"


class Container(http.server.BaseHTTPRequestHandler):
    """Put Blob and Get Blob for who has the signature, as Azure Storage."""

    blobs: dict[str, bytes]

    def do_PUT(self) -> None:  # http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_signed() and self.headers["x-ms-blob-type"] == "BlockBlob":
            self.blobs[self.path.partition("?")[0]] = body
            self._answer(201, b"")
        else:
            self._answer(403, b"")

    def do_GET(self) -> None:  # http.server's name
        body = self.blobs.get(self.path.partition("?")[0]) if self._is_signed() else None
        self._answer(404 if body is None else 200, body or b"")

    def _is_signed(self) -> bool:
        return self.path.partition("?")[2] == _SIGNATURE

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # http.server's names
        pass


@pytest.fixture
def blobs() -> Iterator[dict[str, bytes]]:
    """What the container at `address` holds."""
    kept: dict[str, bytes] = {}
    handler = type("Handler", (Container,), {"blobs": kept})
    server = http.server.ThreadingHTTPServer(("127.0.0.106", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    kept["address"] = f"http://127.0.0.106:{server.server_port}/fleet".encode()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), "127.0.0.106") as running:
        yield running


@pytest.fixture
def azure(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Azure:
    return Azure(hub, monkeypatch)


def _uri(blobs: dict[str, bytes], signature: str = _SIGNATURE) -> str:
    return f"{blobs['address'].decode()}?{signature}"


def _ended(azure: Azure, job: Any) -> Any:
    def find() -> Any:
        return azure.jobs.get_import_export_job(job.job_id)

    wait_until(lambda: find().status != "running", timeout_s=_PATIENCE_S)
    return find()


def test_what_is_exported_is_imported_whole(hub: HubProcess, azure: Azure, blobs: dict[str, bytes]) -> None:
    from azure.iot.hub.models import JobProperties, Twin, TwinProperties

    key = "cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHA="
    for number in range(3):
        azure.registry.create_device_with_sas(f"press-{number}", key, key, "enabled")
    azure.registry.create_module_with_certificate_authority("press-0", "camera", "")
    twin = Twin(tags={"site": "lyön"}, properties=TwinProperties(desired={"rate": 5}))
    azure.registry.update_twin("press-1", twin)
    wanted = JobProperties(type="export", output_blob_container_uri=_uri(blobs), exclude_keys_in_export=False)
    ended = _ended(azure, azure.jobs.create_import_export_job(wanted))
    assert (ended.status, ended.progress, ended.failure_reason) == ("completed", 100, None)
    lines = [json.loads(line) for line in blobs["/fleet/devices.txt"].decode().splitlines()]
    assert [(line["id"], line.get("moduleId")) for line in lines] == [
        *((f"press-{number}", None) for number in range(3)),
        ("press-0", "camera"),
    ]
    assert lines[0]["authentication"]["symmetricKey"]["primaryKey"] == key
    azure.registry.delete_device("press-0")
    azure.registry.delete_device("press-1")
    more = [json.dumps({"id": "press-2", "importMode": "create"}), json.dumps({"id": "a b"})]
    blobs["/fleet/devices.txt"] += "\n".join(more).encode()
    wanted = JobProperties(type="import", input_blob_container_uri=_uri(blobs), output_blob_container_uri=_uri(blobs))
    assert _ended(azure, azure.jobs.create_import_export_job(wanted)).status == "completed"
    assert azure.registry.get_device("press-0").authentication.symmetric_key.primary_key == key
    assert azure.registry.get_module("press-0", "camera").module_id == "camera"
    restored = azure.registry.get_twin("press-1")
    assert (restored.tags, restored.properties.desired["rate"]) == ({"site": "lyön"}, 5)
    errors = [json.loads(line) for line in blobs["/fleet/importErrors.log"].splitlines()]
    assert [error["errorCode"] for error in errors] == ["DeviceAlreadyExists", "ArgumentInvalid"]
    hub.kill()
    hub.start()
    assert [job.status for job in azure.jobs.get_import_export_jobs()] == ["completed", "completed"]


def test_an_export_without_keys_has_none(azure: Azure, blobs: dict[str, bytes]) -> None:
    from azure.iot.hub.models import JobProperties

    azure.registry.create_device_with_sas("secret", "", "", "enabled")
    wanted = JobProperties(type="export", output_blob_container_uri=_uri(blobs), exclude_keys_in_export=True)
    assert _ended(azure, azure.jobs.create_import_export_job(wanted)).status == "completed"
    line = next(each for each in blobs["/fleet/devices.txt"].splitlines() if b'"secret"' in each)
    assert json.loads(line)["authentication"]["symmetricKey"] == {"primaryKey": None, "secondaryKey": None}


def test_a_container_that_refuses_fails_the_job_and_its_signature_stays_out_of_the_reason(
    azure: Azure, blobs: dict[str, bytes]
) -> None:
    from azure.iot.hub.models import JobProperties

    wanted = JobProperties(type="export", output_blob_container_uri=_uri(blobs, "sig=stolen"))
    ended = _ended(azure, azure.jobs.create_import_export_job(wanted))
    assert (ended.status, "status 403" in ended.failure_reason, "stolen" in ended.failure_reason) == (
        "failed",
        True,
        False,
    )
    azure.jobs.cancel_import_export_job(ended.job_id)
    assert failure(azure.jobs.get_import_export_job, "nothing") == (404, "JobNotFound")
    for wrong in (
        JobProperties(type="backup", output_blob_container_uri=_uri(blobs)),
        JobProperties(type="export", output_blob_container_uri="file:///etc"),
        JobProperties(type="import", output_blob_container_uri=_uri(blobs)),
    ):
        assert failure(azure.jobs.create_import_export_job, wrong) == (400, "ArgumentInvalid")
