"""Rollouts, alerts and serving windows over HTTP, through the coordinator's own application."""

from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from cloud.auth.operators import Principal
from cloud.devices import service as devices
from cloud.governance.models import AuditEntry
from cloud.monitoring.events import on_serving_report
from cloud.monitoring.routes import router as monitoring
from cloud.releases import service as releases
from cloud.releases.models import ReleaseRow
from cloud.rollouts.routes import router as rollouts
from cloud.services import Services
from shared.api.releases import ReleaseStage
from shared.ids import DeviceId
from shared.manifests import PROFILE_FILE, Manifest
from shared.messages.events import EventKind
from tests.cloud.rollouts.world import PROFILE, enrol, envelope, open_database
from tests.support.operator import Operator, open_operator

NOW = 1000.0


@pytest.fixture
def client(tmp_path: Path) -> Operator:
    operator = open_operator(tmp_path, open_database(tmp_path), [rollouts, monitoring], clock=lambda: NOW)
    _fill(operator.services)
    return operator


def _fill(services: Services) -> None:
    """Three devices, a published release `r-2` and a draft `r-3`."""
    profile = services.blobs.put(PROFILE.encode())
    with services.sessions() as session, session.begin():
        for number in range(3):
            enrol(session, f"d-{number:02d}", opset_max=21 if number else 12)
        for release_id in ("r-2", "r-3"):
            manifest = Manifest(
                release_id=release_id,
                task="digits",
                task_version="1",
                opset=17,
                ir_version=10,
                inputs=[],
                outputs=[],
                classes=[],
                files={PROFILE_FILE: profile},
                self_test_tolerance=0.1,
                created_at=NOW,
            )
            new = releases.NewRelease(release_id, "m-1", manifest, profile, Principal("ada", "admin"))
            releases.create_draft(session, new)
        session.get_one(ReleaseRow, "r-2").stage = ReleaseStage.PUBLISHED.value


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/rollouts"),
        ("GET", "/v1/rollouts"),
        ("GET", "/v1/rollouts/x"),
        ("POST", "/v1/rollouts/x/start"),
        ("POST", "/v1/rollouts/x/stop"),
        ("POST", "/v1/rollouts/x/resume"),
        ("GET", "/v1/alerts"),
        ("GET", "/v1/alerts/x"),
        ("POST", "/v1/alerts/x/close"),
        ("GET", "/v1/serving-windows"),
    ],
)
def test_nothing_answers_a_caller_without_a_token(client: Operator, method: str, path: str) -> None:
    assert client.request(method, path, json={"release_id": "r-2"}, is_known=False).status_code == 401


def test_a_rollout_is_planned_started_stopped_and_each_act_is_in_the_audit_log(client: Operator) -> None:
    planned = client.post("/v1/rollouts", json={"release_id": "r-2", "soak_s": 1})
    assert planned.status_code == 200
    rollout = planned.json()
    assert (rollout["state"], rollout["generation"]) == ("planned", 1)
    assert [each["device_id"] for wave in rollout["waves"] for each in wave["devices"]] != ["d-00"]
    assert rollout["left_out"] == [
        {
            "device_id": "d-00",
            "state": "left_out",
            "reason": "Its runtime serves ONNX opsets up to 12, the release needs 17.",
        }
    ]
    path = f"/v1/rollouts/{rollout['rollout_id']}"
    assert client.post(f"{path}/start").json()["state"] == "running"
    assert client.post(f"{path}/stop").json()["state"] == "stopped"
    assert client.get(path).json() == client.get("/v1/rollouts").json()[0]
    with client.services.sessions() as session, session.begin():
        entries = session.exec(select(AuditEntry).order_by(AuditEntry.entry_id)).all()  # type: ignore[arg-type]  # SQLModel's column
    assert [entry.action for entry in entries] == ["rollout.create", "rollout.start", "rollout.stop"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"release_id": "nothing"}, 404, "unknown_release"),
        ({"release_id": "r-3"}, 409, "release_not_published"),
        ({"release_id": "r-2", "devices": ["d-01", "stranger"]}, 422, "unknown_rollout_device"),
        ({"release_id": "r-2", "devices": ["d-00"]}, 422, "nothing_to_move"),
        ({"release_id": "r-2", "wave_fractions": [0.5]}, 422, "invalid_rollout_policy"),
        ({"release_id": "r-2", "soak_s": -1}, 422, "invalid_request"),
        ({"release_id": "r-2", "soak_s": 900}, 422, "invalid_rollout_policy"),
    ],
)
def test_a_request_that_makes_no_plan_is_refused_and_stores_nothing(
    client: Operator, body: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post("/v1/rollouts", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get("/v1/rollouts").json() == []


def test_an_act_that_the_state_does_not_allow_is_a_conflict(client: Operator) -> None:
    rollout_id = client.post("/v1/rollouts", json={"release_id": "r-2"}).json()["rollout_id"]
    answer = client.post(f"/v1/rollouts/{rollout_id}/resume")
    assert (answer.status_code, answer.json()["code"]) == (409, "illegal_rollout_transition")
    assert client.post("/v1/rollouts/x/start").status_code == 404


def test_alerts_and_windows_of_a_planned_release_are_listed_and_closed(client: Operator) -> None:
    client.post("/v1/rollouts", json={"release_id": "r-2"})
    drift = [{"feature": "gyro-x", "psi": 0.9, "threshold": 0.2}]
    body = {"release_id": "r-2", "window_s": 1, "requests": 1, "examples": 60, "errors": 0, "drift_examples": 60}
    with client.services.sessions() as session, session.begin():
        for sequence in range(2):
            said = envelope("d-01", EventKind.SERVING_REPORT, {**body, "drift": drift}, sequence=sequence)
            on_serving_report(session, DeviceId("d-01"), said, NOW + sequence)
        assert devices.get_device(session, "d-01").drift[0]["psi"] == 0.9
    alert = client.get("/v1/alerts?open=true").json()[0]
    assert (alert["kind"], alert["subject"], alert["device_id"]) == ("drift", "gyro-x", "d-01")
    assert client.get(f"/v1/alerts/{alert['alert_id']}").json() == alert
    assert client.post(f"/v1/alerts/{alert['alert_id']}/close").json()["closed_at"] == NOW
    assert client.get("/v1/alerts?open=true").json() == []
    assert len(client.get("/v1/alerts").json()) == 1
    assert [window["psi"] for window in client.get("/v1/serving-windows?device_id=d-01&limit=1").json()] == [
        {"gyro-x": 0.9}
    ]
    assert client.get("/v1/serving-windows?device_id=d-02").json() == []
    assert client.get("/v1/alerts/x").status_code == 404
