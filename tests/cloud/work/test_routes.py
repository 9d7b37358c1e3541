"""Work over HTTP: small models come with the list, small updates go with the result; each may be repeated."""

import hashlib
from pathlib import Path

import httpx
import numpy as np
import pytest

from cloud.devices.service import get_device
from cloud.work.models import WorkState
from cloud.work.service import create_work, expire, results_of
from shared.compression.exact_delta import rebuilt
from shared.ids import Digest
from shared.messages.attached import ATTACHED_BYTES_MAX, CONTENT_TYPE, attach, detach
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work, WorkKind, WorkList
from shared.tensors import encode
from tests.support.coordinator import Machine, TestCoordinator, enrol, machine, open_coordinator
from tests.support.http import AppClient
from tests.support.signing_client import signed

UPDATE = b"an update"
REF = ObjectRef(digest=Digest(hashlib.sha256(UPDATE).hexdigest()), size_bytes=len(UPDATE))
DONE = WorkResult(work_id="w1", status=WorkStatus.DONE, update=REF, metrics={"num-examples": 3})


@pytest.fixture
def coordinator(tmp_path: Path) -> TestCoordinator:
    return open_coordinator(tmp_path)


def models() -> tuple[bytes, bytes]:
    """Of two rounds that follow each other."""
    draws = np.random.default_rng(1)
    first = draws.normal(size=5000).astype(np.float32)
    return encode({"w": first}), encode({"w": first + np.float32(1e-4)})


def give(coordinator: TestCoordinator, device: Machine, model: bytes, *, work_id: str = "w1") -> ObjectRef:
    services = coordinator.services
    work = Work(
        work_id=work_id,
        kind=WorkKind.TRAIN,
        campaign_id="c1",
        round=1,
        task="digits",
        task_version="1",
        model=services.blobs.put(model),
        deadline_s=60,
    )
    with services.sessions() as session, session.begin():
        create_work(session, work, device_id=device.device_id, now=coordinator.clock())
    return work.model


def rejections(coordinator: TestCoordinator, device_id: str) -> int:
    """What counts against the device."""
    with coordinator.services.sessions() as session, session.begin():
        return get_device(session, device_id).events_rejected


def end(coordinator: TestCoordinator, work_id: str) -> None:
    with coordinator.services.sessions() as session, session.begin():
        expire(session, work_ids=[work_id], now=1)


def fetched(answer: httpx.Response) -> tuple[WorkList, bytes]:
    assert answer.headers["content-type"] == CONTENT_TYPE
    document, content = detach(answer.content)
    return WorkList.parse(document), content


def hand_in(
    client: AppClient, device: Machine, result: WorkResult, content: bytes = UPDATE, *, work_id: str = "w1"
) -> httpx.Response:
    return signed(client, device, "PUT", f"/v1/device/work/{work_id}/result", body=attach(result, content))


class TestFetching:
    def test_a_device_of_before_gets_the_list_alone(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        give(coordinator, device, b"model")
        found = WorkList.parse(signed(client, device, "GET", "/v1/device/work").content)
        assert [work.work_id for work in found.work] == ["w1"]
        assert found.attached is None

    def test_a_small_model_comes_with_its_work(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        ref = give(coordinator, device, b"model")
        found, content = fetched(signed(client, device, "GET", "/v1/device/work?base="))
        assert content == b"model"
        assert found.attached is not None
        assert (found.attached.model, found.attached.base) == (ref, None)

    def test_the_next_rounds_model_comes_as_the_difference_to_the_one_that_the_device_names(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        before, after = models()
        base = give(coordinator, device, before)
        end(coordinator, "w1")
        give(coordinator, device, after, work_id="w2")
        found, content = fetched(signed(client, device, "GET", f"/v1/device/work?base={base.digest}"))
        assert rebuilt(before, content) == after
        assert len(content) < len(after) / 2
        assert found.attached is not None
        assert found.attached.base == base.digest

    def test_a_base_that_is_another_devices_is_no_base(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        before, after = models()
        stranger = coordinator.services.blobs.put(before)
        give(coordinator, device, after)
        found, content = fetched(signed(client, device, "GET", f"/v1/device/work?base={stranger.digest}"))
        assert content == after
        assert found.attached is not None
        assert found.attached.base is None

    @pytest.mark.parametrize("size", [None, ATTACHED_BYTES_MAX + 1])
    def test_without_work_and_for_a_large_model_the_list_comes_alone(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine, size: int | None
    ) -> None:
        if size is not None:
            give(coordinator, device, bytes(size))
        answer = signed(client, device, "GET", "/v1/device/work?base=")
        assert answer.headers["content-type"] == "application/json"
        assert len(WorkList.parse(answer.content).work) == (size is not None)

    def test_a_base_that_is_no_digest_is_refused(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        give(coordinator, device, b"model")
        assert signed(client, device, "GET", "/v1/device/work?base=..%2Fx").status_code == 422


class TestHandingIn:
    def test_result_and_update_are_stored_once_however_often_they_come(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        give(coordinator, device, b"model")
        other = DONE.model_copy(update={"status": WorkStatus.FAILED, "update": None})
        answers = [hand_in(client, device, DONE), hand_in(client, device, DONE), hand_in(client, device, other, b"")]
        assert [answer.status_code for answer in answers] == [204, 204, 204]
        assert coordinator.services.blobs.get(REF.digest) == UPDATE
        with coordinator.services.sessions() as session, session.begin():
            (outcome,) = results_of(session, campaign_id="c1", round=1)
        assert (outcome.state, outcome.result) == (WorkState.DONE, DONE)

    def test_running_jobs_hear_of_it(self, client: AppClient, coordinator: TestCoordinator, device: Machine) -> None:
        give(coordinator, device, b"model")
        rings: list[str] = []
        coordinator.services.bell.connect("job", lambda: rings.append("ring"))
        hand_in(client, device, DONE)
        coordinator.services.bell.disconnect("job")
        hand_in(client, device, DONE)
        assert rings == ["ring"]

    def test_another_devices_work_is_as_unknown_as_none(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine
    ) -> None:
        other = machine("press-08")
        enrol(client, coordinator, other)
        give(coordinator, device, b"model")
        answers = [hand_in(client, other, DONE), hand_in(client, device, DONE.model_copy(update={"work_id": "w2"}))]
        assert [(answers[0].status_code, answers[0].json()["code"])] == [(404, "unknown_work")]
        assert answers[1].status_code == 422  # the path names another
        assert [rejections(coordinator, name) for name in (other.device_id, device.device_id)] == [1, 1]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (attach(DONE, b"other bytes"), "upload_digest"),
            (attach(DONE.model_copy(update={"update": None}), UPDATE), "upload_digest"),
            (DONE.encode(), "malformed_message"),
            (b"{}\n", "malformed_message"),
            (attach(DONE, bytes(ATTACHED_BYTES_MAX + 1)), "malformed_message"),
        ],
    )
    def test_what_is_not_a_result_and_its_update_is_refused_and_changes_nothing(
        self, client: AppClient, coordinator: TestCoordinator, device: Machine, body: bytes, code: str
    ) -> None:
        give(coordinator, device, b"model")
        answer = signed(client, device, "PUT", "/v1/device/work/w1/result", body=body)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        with coordinator.services.sessions() as session, session.begin():
            (outcome,) = results_of(session, campaign_id="c1", round=1)
        assert (outcome.state, outcome.result) == (WorkState.PENDING, None)
        assert rejections(coordinator, device.device_id) == 1
        assert hand_in(client, device, DONE).status_code == 204
        assert rejections(coordinator, device.device_id) == 1
