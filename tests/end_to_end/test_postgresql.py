"""The main job with PostgreSQL under the coordinator, killed once in the middle."""

from collections.abc import Iterator

import psycopg
import pytest

from fleet import calls
from fleet.waiting import wait_for, wait_for_campaign
from shared.api.campaigns import Campaign, CampaignCreate, PrivacyBudget
from shared.api.rollouts import RolloutCreate
from shared.lifecycles import JobState, RolloutState
from shared.tasks.task import Role
from simulations.demo.inference import InferenceClient
from tests.support.fleet import PATIENCE, Fleet
from tests.support.postgresql import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]

pytestmark = [pytest.mark.processes, pytest.mark.postgresql, pytest.mark.timeout(300)]

DEVICES = ("pg-a", "pg-b")


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory, postgresql_url: str) -> Iterator[Fleet]:
    environment = {"FLEETLEARN_DATABASE_URL": postgresql_url}
    with Fleet(tmp_path_factory.mktemp("fleet"), address="127.0.0.52", environment=environment) as running:
        for number, device_id in enumerate(DEVICES):
            running.enrol(device_id, number=number)
        yield running


def test_training_release_and_rollout_on_postgresql_survive_a_kill(fleet: Fleet, postgresql_url: str) -> None:
    campaign = _start_campaign(fleet)
    fleet.wait_until("a round", lambda: _progress(fleet, campaign).rounds_done >= 1, timeout_s=120)
    fleet.kill_cloud_child("coordinator")
    finished = wait_for_campaign(fleet.client, campaign.campaign_id, patience=PATIENCE)
    assert finished.rounds_done == 2
    assert finished.privacy is not None

    release = fleet.publish(str(finished.result_model_version_id))
    planned = fleet.client.send(
        calls.plan_rollout(RolloutCreate(release_id=release.release_id, wave_fractions=[0.5, 1.0], soak_s=1))
    )
    fleet.client.send(calls.start_rollout(planned.rollout_id))
    done = wait_for(
        fleet.client,
        calls.rollout(planned.rollout_id),
        is_over=lambda r: r.state not in (RolloutState.PLANNED, RolloutState.RUNNING),
        patience=PATIENCE,
    )

    assert done.state is RolloutState.DONE, done.reason
    for device_id in DEVICES:
        assert _share_right(fleet, device_id) > 0.5
    assert not list(fleet.cloud_dir.glob("*.sqlite"))
    assert _devices_in(postgresql_url) == list(DEVICES)


def _start_campaign(fleet: Fleet) -> Campaign:
    request = CampaignCreate(
        task=fleet.task.name,
        model_version_id=fleet.train_base().model_version_id,
        rounds=2,
        privacy=PrivacyBudget(epsilon=8),
        quorum=2,
        round_timeout_s=60,
    )
    return fleet.client.send(calls.create_campaign(request))


def _progress(fleet: Fleet, campaign: Campaign) -> Campaign:
    now = fleet.client.send(calls.campaign(campaign.campaign_id))
    assert now.state not in (JobState.FAILED, JobState.CANCELLED), now.error
    return now


def _share_right(fleet: Fleet, device_id: str) -> float:
    examples = fleet.task.central_data(Role.UNSEEN)
    with InferenceClient(fleet.serving_url(device_id), model=fleet.task.name, schema=fleet.task.schema) as client:
        answers = client.infer_binary(examples.inputs[:64]).outputs.argmax(axis=1)
    return float((answers == examples.labels[:64]).mean())


def _devices_in(url: str) -> list[str]:
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        rows = connection.execute("SELECT device_id FROM device ORDER BY device_id").fetchall()
    return [str(device_id) for (device_id,) in rows]
