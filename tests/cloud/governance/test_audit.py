"""Every act of an operator leaves an entry in the audit log; an act that was refused leaves none."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from cloud.auth.operators import FIRST_PRINCIPAL, FIRST_ROLE, Principal, require_operator
from cloud.devices.models import DeviceRecord
from cloud.domains import routers
from cloud.governance.service import list_entries
from cloud.monitoring.service import note_malformed_event
from cloud.registry.service import NewVersion, register
from cloud.releases.service import NewRelease, create_draft
from cloud.rollouts.models import RolloutRow
from fleet.signing import sign_targets
from shared.api.campaigns import FlowerCampaignCreate, FlowerRun
from shared.flower_apps import read_app
from shared.ids import DeviceId
from shared.lifecycles import RolloutState
from shared.manifests import MANIFEST_FILE, PROFILE_FILE, Manifest
from shared.sketches import DriftProfile, FeatureProfile
from tests.cloud.campaigns.world import FLOWER_APPS
from tests.support.coordinator import START, TestCoordinator, open_coordinator
from tests.support.http import AppClient
from tests.support.release_server import release_payloads

DEVICE = DeviceId("press-07")
PROFILE = DriftProfile(
    features=[FeatureProfile(feature="x", edges=[0.0], proportions=[0.5, 0.5], threshold=0.2)],
    examples_min=50,
    reference_examples=1000,
)


@pytest.fixture
def coordinator(tmp_path: Path, database_url: str) -> Iterator[TestCoordinator]:
    coordinator = open_coordinator(tmp_path, database_url=database_url)
    _fill(coordinator)
    yield coordinator
    coordinator.engine.dispose()


def _fill(coordinator: TestCoordinator) -> None:
    """A device, two models and a release that is not signed."""
    device = DeviceRecord(
        device_id=DEVICE,
        enrolled_at=START,
        created_by_principal="p",
        created_by_role="r",
        public_key_pem="",
        certificate_pem="",
        certificate_expires_at=9e9,
        tasks={"digits": "1"},
        opset_max=30,
        last_seen_at=START,
    )
    services = coordinator.services
    payloads = release_payloads("one") | {PROFILE_FILE: PROFILE.encode()}
    objects = {name: services.blobs.put(payload) for name, payload in payloads.items() if name != MANIFEST_FILE}
    manifest = Manifest.parse(payloads[MANIFEST_FILE]).model_copy(update={"files": objects})
    draft = NewRelease("test:one", "m1", manifest, services.blobs.put(manifest.encode()), Principal("p", "r"))
    with services.sessions() as session, session.begin():
        session.add(device)
        for name in ("m1", "m2"):
            new = NewVersion(f"test:{name}", "digits", "1", services.blobs.put(b"weights"))
            register(session, new, model_version_id=name, now=START)
        create_draft(session, draft)
        note_malformed_event(session, DEVICE, reason="odd", cause_id="1", now=START)


class Operator:
    """Sends requests as the first operator, and remembers which routes were acts."""

    def __init__(self, coordinator: TestCoordinator, client: AppClient) -> None:
        self._coordinator = coordinator
        self._client = client
        self.acts: list[tuple[str, str]] = []

    def get(self, path: str) -> Any:  # Any: JSON
        return self._client.get(path, headers=self._coordinator.operator).json()

    def act(self, method: str, route: str, body: object = None, **ids: str) -> dict[str, Any]:
        answer = self._client.request(method, route.format(**ids), json=body, headers=self._coordinator.operator)
        assert answer.is_success, f"{method} {route}: {answer.status_code} {answer.text}"
        self.acts.append((method, route))
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found


def test_every_act_is_in_the_log_with_who_did_it(coordinator: TestCoordinator) -> None:
    with coordinator.client() as client:
        operator = Operator(coordinator, client)
        _train(operator)
        _run_flower(operator, coordinator)
        _ask_for_statistics(operator)
        _release(operator, coordinator)
        _roll_out(operator, coordinator)
        operator.act("POST", "/v1/tokens", {})
        operator.act("POST", "/v1/alerts/{alert_id}/close", alert_id=operator.get("/v1/alerts")[0]["alert_id"])
        operator.act("POST", "/v1/devices/{device_id}/accept-ledger", device_id=DEVICE)
        operator.act("DELETE", "/v1/devices/{device_id}", device_id=DEVICE)

    assert set(operator.acts) == _operator_acts()
    with coordinator.services.sessions() as session, session.begin():
        entries = list_entries(session, limit=100)
    assert len(entries) == len(operator.acts)
    assert {(entry.principal, entry.role) for entry in entries} == {(FIRST_PRINCIPAL, FIRST_ROLE)}
    assert all(entry.subject and "." in entry.action for entry in entries)
    assert len({entry.action for entry in entries}) == len(set(operator.acts))


def test_a_refused_act_is_not_in_the_log(coordinator: TestCoordinator) -> None:
    refused = [route for method, route in _operator_acts() if method == "POST" and "{" in route]
    with coordinator.client() as client:
        for route in refused:
            path = re.sub(r"{\w+}", "nothing", route)
            answer = client.post(path, json={"targets_metadata": "{}"}, headers=coordinator.operator)
            assert answer.status_code == 404, f"{route}: {answer.text}"
    with coordinator.services.sessions() as session, session.begin():
        assert list_entries(session, limit=100) == []


def _train(operator: Operator) -> None:
    job = operator.act("POST", "/v1/trainings", {"task": "digits"})
    operator.act("POST", "/v1/jobs/{job_id}/cancel", job_id=job["job_id"])
    asked = {"task": "digits", "model_version_id": "m1", "rounds": 2}
    campaign = operator.act("POST", "/v1/campaigns", asked)
    of_it = {"campaign_id": campaign["campaign_id"]}
    operator.act("POST", "/v1/campaigns/{campaign_id}/clone", {"rounds": 3}, **of_it)
    for act in ("pause", "resume", "cancel"):
        operator.act("POST", f"/v1/campaigns/{{campaign_id}}/{act}", **of_it)
    operator.act("POST", "/v1/models/{model_version_id}/approve", model_version_id="m1")
    operator.act("POST", "/v1/models/{model_version_id}/retire", model_version_id="m2")


def _run_flower(operator: Operator, coordinator: TestCoordinator) -> None:
    shutil.copytree(FLOWER_APPS, coordinator.services.settings.flower_apps_dir)
    app = read_app(FLOWER_APPS / "numpy-state")
    run = FlowerRun(app=app.name, version=app.version, digest=app.digest)
    operator.act("POST", "/v1/campaigns/flower", FlowerCampaignCreate(flower=run).model_dump(mode="json"))


def _ask_for_statistics(operator: Operator) -> None:
    asked = {"task": "digits", "query": {"feature": "ink", "low": 0, "high": 1}}
    analysis = operator.act("POST", "/v1/analyses", asked)
    operator.act("POST", "/v1/analyses/{analysis_id}/cancel", analysis_id=analysis["analysis_id"])


def _release(operator: Operator, coordinator: TestCoordinator) -> None:
    operator.act("POST", "/v1/releases", {"model_version_id": "m1"})
    request = operator.act("POST", "/v1/releases/{release_id}/signing-request", release_id="one")
    key = coordinator.services.settings.offline_keys_dir / "targets.pem"
    signed = {"targets_metadata": sign_targets(request["targets_metadata"], targets_key_file=key)}
    operator.act("POST", "/v1/releases/{release_id}/publish", signed, release_id="one")


def _roll_out(operator: Operator, coordinator: TestCoordinator) -> None:
    rollout_id = operator.act("POST", "/v1/rollouts", {"release_id": "one"})["rollout_id"]
    operator.act("POST", "/v1/rollouts/{rollout_id}/start", rollout_id=rollout_id)
    with coordinator.services.sessions() as session, session.begin():
        session.get_one(RolloutRow, rollout_id).state = RolloutState.HALTED
    operator.act("POST", "/v1/rollouts/{rollout_id}/resume", rollout_id=rollout_id)
    operator.act("POST", "/v1/rollouts/{rollout_id}/stop", rollout_id=rollout_id)


def _operator_acts() -> set[tuple[str, str]]:
    """Every route of the application that an operator's token opens and that changes something."""
    questions = {("POST", "/v1/campaigns/plan")}
    routes = [route for router in routers() for route in router.routes if isinstance(route, APIRoute)]
    return {
        (method, route.path)
        for route in routes
        for method in (route.methods or set()) - {"GET", "HEAD", "OPTIONS"}
        if any(part.call is require_operator for part in route.dependant.dependencies)
    } - questions
