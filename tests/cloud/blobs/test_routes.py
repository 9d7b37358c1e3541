"""Objects over HTTP: only those of a device's own work, in any part; uploads that go on where they stopped."""

import hashlib
from pathlib import Path

import httpx
import pytest

from cloud.work.service import create_work
from shared.messages.base import ObjectRef
from shared.messages.work import Work, WorkKind
from tests.support.coordinator import Machine, TestCoordinator, enrol, machine, open_coordinator
from tests.support.http import AppClient
from tests.support.signing_client import signed

PAYLOAD = bytes(range(256)) * 4


@pytest.fixture
def coordinator(tmp_path: Path) -> TestCoordinator:
    return open_coordinator(tmp_path, upload_bytes_max=10_000)


def give_work(coordinator: TestCoordinator, device: Machine, model: ObjectRef) -> None:
    work = Work(
        work_id="w1",
        kind=WorkKind.TRAIN,
        campaign_id="c1",
        round=1,
        task="digits",
        task_version="1",
        model=model,
        deadline_s=60,
    )
    with coordinator.services.sessions() as session, session.begin():
        create_work(session, work, device_id=device.device_id, now=coordinator.clock())


class TestDownloads:
    @pytest.fixture
    def path(self, coordinator: TestCoordinator, device: Machine) -> str:
        model = coordinator.services.blobs.put(PAYLOAD)
        give_work(coordinator, device, model)
        return f"/v1/device/objects/{model.digest}"

    def test_the_model_of_its_work_is_a_devices_to_read(self, client: AppClient, device: Machine, path: str) -> None:
        assert signed(client, device, "GET", path).content == PAYLOAD

    def test_another_devices_model_is_as_unknown_as_none(
        self, client: AppClient, coordinator: TestCoordinator, path: str
    ) -> None:
        other = machine("press-08")
        enrol(client, coordinator, other)
        answers = [signed(client, other, "GET", p) for p in (path, f"/v1/device/objects/{'0' * 64}")]
        assert [(a.status_code, a.json()["code"]) for a in answers] == [(404, "unknown_object")] * 2

    @pytest.mark.parametrize(
        ("header", "expected", "content_range"),
        [
            ("bytes=0-", PAYLOAD, "bytes 0-1023/1024"),
            ("bytes=10-19", PAYLOAD[10:20], "bytes 10-19/1024"),
            ("bytes=1000-9999", PAYLOAD[1000:], "bytes 1000-1023/1024"),
            ("bytes=-24", PAYLOAD[-24:], "bytes 1000-1023/1024"),
            ("bytes=-9999", PAYLOAD, "bytes 0-1023/1024"),
        ],
    )
    def test_a_range_is_answered_with_that_part(
        self, client: AppClient, device: Machine, path: str, header: str, expected: bytes, content_range: str
    ) -> None:
        answer = signed(client, device, "GET", path, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, expected)
        assert answer.headers["Content-Range"] == content_range

    @pytest.mark.parametrize("header", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
    def test_a_range_beyond_the_object_is_416_and_says_the_size(
        self, client: AppClient, device: Machine, path: str, header: str
    ) -> None:
        answer = signed(client, device, "GET", path, headers={"Range": header})
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */1024")

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=0-1,4-5",
            "items=0-1",
            "bytes=" + "9" * 40 + "-",
        ],
    )
    def test_a_malformed_range_is_ignored(self, client: AppClient, device: Machine, path: str, header: str) -> None:
        answer = signed(client, device, "GET", path, headers={"Range": header})
        assert (answer.status_code, answer.content) == (200, PAYLOAD)


class TestUploads:
    digest = hashlib.sha256(PAYLOAD).hexdigest()
    path = f"/v1/device/uploads/{digest}"

    def patch(self, client: AppClient, device: Machine, body: bytes, *, offset: int, length: int) -> httpx.Response:
        headers = {"Upload-Offset": str(offset), "Upload-Length": str(length)}
        return signed(client, device, "PATCH", self.path, body=body, headers=headers)

    def test_an_upload_goes_on_where_it_stopped(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        assert signed(client, device, "HEAD", self.path).headers["Upload-Offset"] == "0"
        first = self.patch(client, device, PAYLOAD[:600], offset=0, length=1024)
        assert (first.status_code, first.headers["Upload-Offset"]) == (204, "600")
        told = signed(client, device, "HEAD", self.path).headers
        assert (told["Upload-Offset"], "Upload-Complete" in told) == ("600", False)
        last = self.patch(client, device, PAYLOAD[600:], offset=600, length=1024)
        assert (last.headers["Upload-Offset"], last.headers["Upload-Complete"]) == ("1024", "1")
        assert coordinator.services.blobs.get(self.digest) == PAYLOAD  # type: ignore[arg-type]  # a digest it is
        assert list((coordinator.services.settings.uploads_dir / device.device_id).iterdir()) == []

    def test_a_chunk_that_was_sent_twice_is_answered_with_the_right_offset(
        self, client: AppClient, device: Machine
    ) -> None:
        self.patch(client, device, PAYLOAD[:600], offset=0, length=1024)
        answer = self.patch(client, device, PAYLOAD[:600], offset=0, length=1024)
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, "600")

    def test_the_last_chunk_sent_twice_is_complete(self, client: AppClient, device: Machine) -> None:
        for _ in range(2):
            answer = self.patch(client, device, PAYLOAD, offset=0, length=1024)
            assert (answer.status_code, answer.headers["Upload-Complete"]) == (204, "1")

    def test_other_bytes_than_the_digest_names_are_dropped(self, client: AppClient, device: Machine) -> None:
        answer = self.patch(client, device, b"x" * 1024, offset=0, length=1024)
        assert (answer.status_code, answer.json()["code"]) == (422, "upload_digest")
        assert signed(client, device, "HEAD", self.path).headers["Upload-Offset"] == "0"

    def test_more_than_announced_or_allowed_is_refused(self, client: AppClient, device: Machine) -> None:
        assert self.patch(client, device, b"x" * 20, offset=0, length=10).json()["code"] == "upload_length"
        assert self.patch(client, device, b"x", offset=0, length=10_001).json()["code"] == "upload_too_large"

    @pytest.mark.parametrize("offset", ["", "-1", "a", "1e3", "99999999999999999999"])
    def test_a_malformed_offset_is_refused(self, client: AppClient, device: Machine, offset: str) -> None:
        headers = {"Upload-Offset": offset, "Upload-Length": "10"}
        assert signed(client, device, "PATCH", self.path, body=b"x", headers=headers).status_code == 422

    def test_unfinished_uploads_of_a_device_are_bounded(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        for number in range(12):
            path = f"/v1/device/uploads/{number:064}"
            headers = {"Upload-Offset": "0", "Upload-Length": "10"}
            assert signed(client, device, "PATCH", path, body=b"x", headers=headers).status_code == 204
        assert len(list((coordinator.services.settings.uploads_dir / device.device_id).iterdir())) == 8
