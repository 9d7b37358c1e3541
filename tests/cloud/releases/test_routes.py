"""Releases over HTTP, from a packaged model to a device that serves it: real routes, real signatures, real runtime."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from cloud.auth.operators import Principal
from cloud.jobs.service import get_job
from cloud.packaging.service import JOB_KIND
from cloud.registry.service import NewVersion, register
from cloud.releases.controller import TimestampController
from cloud.releases.service import NewRelease, create_draft, get_release
from edge_agent.releases.errors import FetchError, NotFoundError
from edge_agent.releases.installer import Installer
from edge_agent.releases.trust import pin_root
from fleet.signing import remember_published, review_targets, sign_targets
from shared.api.releases import Release, ReleaseStage
from shared.lifecycles import ReleaseState
from shared.manifests import MANIFEST_FILE, MODEL_FILE, Manifest
from tests.support.coordinator import START, Machine, TestCoordinator, enrol, machine, open_coordinator
from tests.support.http import AppClient
from tests.support.release_server import release_payloads
from tests.support.signing_client import signed


@pytest.fixture
def coordinator(tmp_path: Path, database_url: str) -> Iterator[TestCoordinator]:
    coordinator = open_coordinator(tmp_path / "data", database_url=database_url)
    yield coordinator
    coordinator.engine.dispose()


class HttpTransport:
    """A device's view of the coordinator, through the signed routes."""

    def __init__(self, client: AppClient, device: Machine) -> None:
        self._client = client
        self._device = device

    def get(self, path: str, *, offset: int, bytes_max: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer = signed(self._client, self._device, "GET", f"/v1/device/tuf/{quote(path)}", headers=headers)
        if answer.status_code == 404:
            raise NotFoundError(f"Expected {path}, got none")
        if answer.status_code != (206 if offset else 200):
            raise FetchError(f"Expected {path}, got status {answer.status_code}")
        yield answer.content


def _draft(coordinator: TestCoordinator, release_id: str) -> Release:
    services = coordinator.services
    payloads = release_payloads(release_id)
    manifest_object, *_ = [services.blobs.put(payload) for payload in payloads.values()]
    new = NewRelease(
        origin=f"package:{release_id}",
        model_version_id="version-1",
        manifest=Manifest.parse(payloads[MANIFEST_FILE]),
        manifest_object=manifest_object,
        author=Principal("eve", "admin"),
    )
    with services.sessions() as session, session.begin():
        return create_draft(session, new)


def _publish(client: AppClient, coordinator: TestCoordinator, release_id: str) -> dict[str, object]:
    key = coordinator.services.settings.offline_keys_dir / "targets.pem"
    request = client.post(f"/v1/releases/{release_id}/signing-request", headers=coordinator.operator)
    assert request.status_code == 200, request.text
    text = request.json()["targets_metadata"]
    assert review_targets(text, targets_key_file=key).releases == (release_id,)
    body = {"targets_metadata": sign_targets(text, targets_key_file=key)}
    answer = client.post(f"/v1/releases/{release_id}/publish", json=body, headers=coordinator.operator)
    assert answer.status_code == 200, answer.text
    remember_published(body["targets_metadata"], targets_key_file=key)
    published: dict[str, object] = answer.json()
    return published


def test_a_published_release_reaches_a_device_over_http(
    client: AppClient, coordinator: TestCoordinator, tmp_path: Path
) -> None:
    _draft(coordinator, "one")
    assert _publish(client, coordinator, "one")["stage"] == "published"
    device = machine()
    enrolled = enrol(client, coordinator, device)
    pin_root(tmp_path / "device", enrolled["tuf_root"])
    installer = Installer(
        state_dir=tmp_path / "device",
        transport=HttpTransport(client, device),
        self_test=lambda folder, manifest: None,
        opset_max=21,
        now=lambda: START,
    )
    states: list[ReleaseState] = []
    assert installer.install("one", on_state=states.append).release_id == "one"
    assert states[-1] is ReleaseState.ACTIVE


def test_an_interrupted_download_goes_on_by_range(
    client: AppClient, coordinator: TestCoordinator, tmp_path: Path
) -> None:
    release = _draft(coordinator, "one")
    _publish(client, coordinator, "one")
    device = machine()
    enrol(client, coordinator, device)
    digest = release.manifest.files[MODEL_FILE].digest
    path = f"/v1/device/tuf/targets/releases/one/{digest}.{MODEL_FILE}"
    whole = signed(client, device, "GET", path).content
    rest = signed(client, device, "GET", path, headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.content) == (206, whole[100:])
    assert signed(client, device, "GET", path, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "metadata/99.root.json",
        "metadata/..%2F..%2Fpki%2Fca.key",
        "metadata/snapshot.pem",
        "targets/..%2F..%2Foperator.token",
        "targets/releases/one/model.onnx",
        "targets/../online-keys/timestamp.pem",
    ],
)
def test_nothing_but_the_repository_is_served(client: AppClient, coordinator: TestCoordinator, path: str) -> None:
    device = machine()
    enrol(client, coordinator, device)
    assert signed(client, device, "GET", f"/v1/device/tuf/{path}").status_code in (401, 404)


def test_strangers_read_no_release(client: AppClient) -> None:
    assert client.get("/v1/device/tuf/metadata/timestamp.json").status_code == 401
    assert client.get("/v1/releases").status_code == 401
    assert client.post("/v1/releases/one/publish", json={"targets_metadata": "{}"}).status_code == 401


def test_a_draft_is_shown_and_no_device_gets_it(client: AppClient, coordinator: TestCoordinator) -> None:
    _draft(coordinator, "one")
    listed = client.get("/v1/releases", headers=coordinator.operator).json()
    assert [(each["release_id"], each["stage"]) for each in listed] == [("one", "draft")]
    device = machine()
    enrol(client, coordinator, device)
    assert signed(client, device, "GET", "/v1/device/tuf/metadata/2.targets.json").status_code == 404


def test_a_wrong_signature_is_refused_in_one_sentence(client: AppClient, coordinator: TestCoordinator) -> None:
    _draft(coordinator, "one")
    text = client.post("/v1/releases/one/signing-request", headers=coordinator.operator).json()["targets_metadata"]
    body = {"targets_metadata": text}
    answer = client.post("/v1/releases/one/publish", json=body, headers=coordinator.operator)
    assert answer.status_code == 422
    assert answer.json()["code"] == "untrusted_targets"
    assert "got signatures by none" in answer.json()["message"]
    assert client.get("/v1/releases/one", headers=coordinator.operator).json()["stage"] == "draft"


def test_a_published_release_is_not_signed_again(client: AppClient, coordinator: TestCoordinator) -> None:
    _draft(coordinator, "one")
    _publish(client, coordinator, "one")
    answer = client.post("/v1/releases/one/signing-request", headers=coordinator.operator)
    assert (answer.status_code, answer.json()["code"]) == (409, "already_published")


def test_unknown_releases_and_models_are_404(client: AppClient, coordinator: TestCoordinator) -> None:
    for method, path in (("GET", ""), ("POST", "/signing-request")):
        answer = client.request(method, f"/v1/releases/nothing{path}", headers=coordinator.operator)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_release")
    answer = client.post("/v1/releases", json={"model_version_id": "nothing"}, headers=coordinator.operator)
    assert answer.status_code == 404


def test_packaging_is_a_job_of_the_operator_who_asked(client: AppClient, coordinator: TestCoordinator) -> None:
    services = coordinator.services
    version = NewVersion(origin="x", task="digits", task_version="1", weights=services.blobs.put(b"weights"))
    with services.sessions() as session, session.begin():
        register(session, version, model_version_id="version-1", now=START)
    answer = client.post("/v1/releases", json={"model_version_id": "version-1"}, headers=coordinator.operator)
    assert answer.status_code == 201
    with services.sessions() as session, session.begin():
        job = get_job(session, answer.json()["job_id"])
    assert (job.kind, job.spec, job.created_by_principal) == (JOB_KIND, {"model_version_id": "version-1"}, "operator")


def test_a_kill_between_repository_and_table_is_healed(client: AppClient, coordinator: TestCoordinator) -> None:
    """The repository is written first; the coordinator dies before its transaction ends."""
    _draft(coordinator, "one")
    services = coordinator.services
    controller = TimestampController(services)
    controller.step()
    _publish(client, coordinator, "one")
    with services.sessions() as session, session.begin():
        from cloud.releases.models import ReleaseRow

        row = session.get(ReleaseRow, "one")
        assert row is not None
        row.stage, row.published_at = ReleaseStage.DRAFT.value, None
        session.add(row)
    controller.step()
    with services.sessions() as session, session.begin():
        healed = get_release(session, "one")
    assert healed.stage is ReleaseStage.PUBLISHED
    assert healed.published_at == START
