"""Campaigns, models and trainings over HTTP, through the coordinator's own application."""

import pytest

from cloud.campaigns.accounts.routes import router as accounts
from cloud.campaigns.routes import router as campaigns
from cloud.registry.routes import router as registry
from cloud.training.routes import router as training
from tests.cloud.campaigns.world import START, World, trains
from tests.support.operator import Operator, open_operator

ASKED = {"task": "digits", "model_version_id": START, "rounds": 2}


@pytest.fixture
def client(world: World) -> Operator:
    return open_operator(
        world.folder, world.sessions, [campaigns, accounts, registry, training], clock=lambda: world.clock
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/campaigns"),
        ("POST", "/v1/campaigns/plan"),
        ("GET", "/v1/campaigns"),
        ("GET", "/v1/campaigns/x"),
        ("GET", "/v1/privacy"),
        ("POST", "/v1/campaigns/x/cancel"),
        ("POST", "/v1/campaigns/x/clone"),
        ("POST", "/v1/campaigns/x/pause"),
        ("POST", "/v1/campaigns/x/resume"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/x"),
        ("POST", "/v1/models/x/approve"),
        ("POST", "/v1/models/x/retire"),
        ("POST", "/v1/trainings"),
    ],
)
def test_nothing_answers_a_caller_without_a_token(client: Operator, method: str, path: str) -> None:
    answer = client.request(method, path, json=ASKED, is_known=False)

    assert answer.status_code == 401


def test_a_campaign_is_created_listed_shown_and_cancelled(client: Operator) -> None:
    created = client.post("/v1/campaigns", json=ASKED)
    campaign_id = created.json()["campaign_id"]

    assert (created.status_code, created.json()["state"]) == (201, "queued")
    assert [one["campaign_id"] for one in client.get("/v1/campaigns").json()] == [campaign_id]
    assert client.get(f"/v1/campaigns/{campaign_id}").json() == created.json()
    assert client.post(f"/v1/campaigns/{campaign_id}/cancel").json()["state"] == "cancelled"


def test_a_campaign_is_paused_resumed_and_cloned(client: Operator) -> None:
    campaign_id = client.post("/v1/campaigns", json=ASKED).json()["campaign_id"]

    assert client.post(f"/v1/campaigns/{campaign_id}/pause").json()["state"] == "paused"
    assert client.post(f"/v1/campaigns/{campaign_id}/resume").json()["state"] == "queued"
    assert client.post(f"/v1/campaigns/{campaign_id}/resume").json()["code"] == "job_not_paused"
    clone = client.post(f"/v1/campaigns/{campaign_id}/clone", json={"rounds": 3})
    assert (clone.status_code, clone.json()["rounds"], clone.json()["task"]) == (201, 3, "digits")
    assert clone.json()["campaign_id"] != campaign_id
    assert client.post("/v1/campaigns/none/clone", json={}).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({**ASKED, "strategy": "fedsgd"}, 422, "unknown_strategy"),
        ({**ASKED, "model_version_id": "v9"}, 404, "unknown_model_version"),
        ({**ASKED, "devices": ["nobody"]}, 404, "unknown_device"),
        ({**ASKED, "rounds": 0}, 422, None),
    ],
)
def test_a_wrong_campaign_is_refused_with_one_sentence(
    client: Operator, asked: dict[str, object], status: int, code: str | None
) -> None:
    answer = client.post("/v1/campaigns", json=asked)

    assert answer.status_code == status
    assert answer.json()["message"].startswith("Expected")
    assert code in (None, answer.json()["code"])


def test_the_history_shows_every_device_of_every_round(client: Operator, world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.ask(rounds=1)
    world.run()

    shown = client.get("/v1/campaigns/campaign-1").json()

    assert [[device["status"] for device in r["devices"]] for r in shown["history"]] == [["done", "done"]]
    assert shown["history"][0]["accuracy"] is not None


def test_a_model_version_is_shown_and_changes_its_stage(client: Operator) -> None:
    assert [one["model_version_id"] for one in client.get("/v1/models").json()] == [START]
    assert client.post(f"/v1/models/{START}/approve").json()["stage"] == "approved"
    assert client.post(f"/v1/models/{START}/approve").status_code == 409
    assert client.get(f"/v1/models/{START}").json()["stage"] == "approved"
    assert client.get("/v1/models/v9").status_code == 404


def test_training_is_queued_as_a_job(client: Operator) -> None:
    created = client.post("/v1/trainings", json={"task": "digits"})

    assert (created.status_code, created.json()["kind"], created.json()["state"]) == (201, "train_base", "queued")
    assert client.post("/v1/trainings", json={"task": "weather"}).status_code == 422


def test_a_plan_says_what_a_campaign_would_cost_and_leaves_nothing(client: Operator) -> None:
    asked = {**ASKED, "user_privacy": {"epsilon": 2.0, "clip_norm": 0.5}}

    planned = client.post("/v1/campaigns/plan", json=asked)

    assert planned.status_code == 200
    assert 1.9 < planned.json()["user_privacy"]["epsilon"] <= 2
    assert planned.json()["user_privacy_spent"]["epsilon"] == 0
    assert client.get("/v1/campaigns").json() == []
    assert client.get(f"/v1/campaigns/{planned.json()['campaign_id']}").status_code == 404
    assert client.post("/v1/campaigns/plan", json={**asked, "strategy": "median"}).json()["code"] == "invalid_campaign"


def test_a_plan_and_a_start_say_who_would_refuse_and_accounts_are_shown(client: Operator, world: World) -> None:
    limits = {"epsilon_limit": 3.0, "device_epsilon_limit": 1.0, "delta": 1e-5}
    spent = {"epsilon": 2.5, "delta": 1e-5, "epsilon_limit": 3.0, "dataset_id": "d", "unit": "image"}
    world.add("press-07", trains, privacy_limits=limits, privacy=[spent])
    asked = {**ASKED, "devices": ["press-07"], "quorum": 1}
    hiding = {**asked, "user_privacy": {"noise_multiplier": 2.0, "clip_norm": 0.5}}

    planned = client.post("/v1/campaigns/plan", json=hiding).json()

    (refusal,) = planned["would_refuse"]
    assert (refusal["device_id"], refusal["dataset_id"], refusal["rounds"]) == ("press-07", "device", 0)
    assert client.post("/v1/campaigns", json=hiding).json()["would_refuse"] == [refusal]
    assert client.post("/v1/campaigns/plan", json=asked).json()["would_refuse"] == []
    (account,) = client.get("/v1/privacy?device_id=press-07").json()
    assert (account["dataset_id"], account["epsilon"], account["epsilon_left"]) == ("d", 2.5, 0.5)
    assert client.get("/v1/privacy").json() == [account]
    assert client.get("/v1/privacy?device_id=press-99").status_code == 404
