"""The main job with a plain Mosquitto for a hub: the same programs, two settings, and a broker that forgets."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleet import calls
from fleet.waiting import wait_for, wait_for_campaign
from shared.api.campaigns import CampaignCreate, PrivacyBudget
from shared.api.rollouts import RolloutCreate
from shared.lifecycles import ReleaseState, RolloutState
from tests.support.fleet import PATIENCE, Fleet
from tests.support.mosquitto import COORDINATOR_PORT, FLEET, Mosquitto, mosquitto_program, running_mosquitto

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ADDRESS = "127.0.0.65"
DEVICE = "unit-a"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Mosquitto]]:
    mosquitto_program()
    folder: Path = tmp_path_factory.mktemp("broker")
    environment = {
        "FLEETLEARN_HUB": f"mqtts://{ADDRESS}:{COORDINATOR_PORT}/{FLEET}",
        "FLEETLEARN_HUB_FOR_DEVICES": f"mqtts://{ADDRESS}:8883/{FLEET}",
    }
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(folder, address=ADDRESS, environment=environment))
        pki = fleet.cloud_dir / "pki"
        files = {"certificate_file": pki / "broker.pem", "key_file": pki / "broker.key"}
        broker = stack.enter_context(running_mosquitto(folder, ADDRESS, ca_file=pki / "ca.pem", **files))
        yield fleet, broker


def test_a_round_and_a_rollout_go_through_a_broker_that_dies_between_them(parts: tuple[Fleet, Mosquitto]) -> None:
    fleet, broker = parts
    fleet.enrol(DEVICE, number=0)
    base = fleet.train_base()
    request = CampaignCreate(
        task=fleet.task.name,
        model_version_id=base.model_version_id,
        rounds=1,
        privacy=PrivacyBudget(epsilon=8),
        quorum=1,
    )
    campaign = fleet.client.send(calls.create_campaign(request))
    trained = wait_for_campaign(fleet.client, campaign.campaign_id, patience=PATIENCE)
    assert trained.rounds_done == 1
    assert [device.status for device in trained.history[0].devices] == ["done"]

    release = fleet.publish(str(trained.result_model_version_id))
    broker.kill()
    rollout = fleet.client.send(calls.plan_rollout(RolloutCreate(release_id=release.release_id, soak_s=1)))
    fleet.client.send(calls.start_rollout(rollout.rollout_id))
    broker.start()
    done = wait_for(
        fleet.client,
        calls.rollout(rollout.rollout_id),
        is_over=lambda r: r.state not in (RolloutState.PLANNED, RolloutState.RUNNING),
        patience=PATIENCE,
    )
    assert done.state is RolloutState.DONE, done.reason
    assert fleet.device(DEVICE).release_state is ReleaseState.ACTIVE
