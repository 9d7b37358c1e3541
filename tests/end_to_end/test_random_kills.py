"""Real processes killed at random moments: each campaign ends with the very weights that its replies make undisturbed.

Five kills in the normal run; `make soak` has fifty. A failure prints its seed: FLEETLEARN_SOAK_SEED repeats the choice
of what is killed and when, though not what the machine makes of it.
"""

import os
import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import calls
from fleet.waiting import wait_for_campaign
from shared.api.campaigns import Campaign, CampaignCreate
from shared.lifecycles import JobState
from tests.support.fleet import PATIENCE, Fleet
from tests.support.replay import Replay

KILLS = int(os.environ.get("FLEETLEARN_SOAK_KILLS", "5"))
SEED = int(os.environ.get("FLEETLEARN_SOAK_SEED", str(secrets.randbits(32))))
ROUNDS = 4 * 5
"""Of a campaign: more than are done between five kills."""
CAMPAIGNS_MAX = KILLS + 1
PAUSE_MAX_S = 1.5
DEVICES = ("unit-a", "unit-b", "unit-c")
TARGETS = ("coordinator", "worker", *DEVICES)
OPTIONS = ("--allow-without-privacy",)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240 + 60 * KILLS)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    # A worker that dies again and again would be given up; here that is no fault of its job.
    patient = {"FLEETLEARN_JOB_RESTARTS_MAX": str(KILLS)}
    with Fleet(tmp_path_factory.mktemp("fleet"), address="127.0.0.64", environment=patient) as running:
        for number, device_id in enumerate(DEVICES):
            running.enrol(device_id, number=number, options=OPTIONS)
        yield running


def test_kills_at_random_moments_change_no_bit_of_the_result(fleet: Fleet, tmp_path: Path) -> None:
    print(f"FLEETLEARN_SOAK_SEED={SEED}")
    moments, killed = random.Random(SEED), 0
    start = fleet.train_base().model_version_id
    for _ in range(CAMPAIGNS_MAX):
        campaign = _start(fleet, start)
        while killed < KILLS and _is_running(fleet, campaign):
            time.sleep(moments.uniform(0, PAUSE_MAX_S))  # the moment is the point: nothing is waited for
            _kill(fleet, moments.choice(TARGETS))
            killed += 1
        finished = wait_for_campaign(fleet.client, campaign.campaign_id, patience=PATIENCE)
        assert finished.rounds_done == ROUNDS
        replay = Replay(fleet.cloud_dir, campaign.campaign_id)
        assert replay.run(tmp_path / "replay") == replay.result.weights.digest, f"seed {SEED}"
        start = str(finished.result_model_version_id)
        if killed >= KILLS:
            break
    assert killed == KILLS
    # The wrong answer: one reply of one device is left out.
    others = dict(list(replay.replies.items())[1:])
    assert replay.run(tmp_path / "replay", replies=others) != replay.result.weights.digest


def _start(fleet: Fleet, model_version_id: str) -> Campaign:
    request = CampaignCreate(
        task=fleet.task.name,
        model_version_id=model_version_id,
        rounds=ROUNDS,
        strategy="fedadam",
        strategy_settings={"server_learning_rate": 0.01},
        quorum=2,
        round_timeout_s=60,
    )
    return fleet.client.send(calls.create_campaign(request))


def _is_running(fleet: Fleet, campaign: Campaign) -> bool:
    """Whether it is under way; a coordinator that is being started again is asked until it answers."""
    states: list[JobState] = []

    def has_answered() -> bool:
        now = fleet.client.send(calls.campaign(campaign.campaign_id))
        assert now.state not in (JobState.FAILED, JobState.CANCELLED), f"{now.error}, seed {SEED}"
        states[:] = [now.state]
        return True

    fleet.wait_until("a coordinator that answers", has_answered, timeout_s=90)
    return states[0] in (JobState.QUEUED, JobState.RUNNING)


def _kill(fleet: Fleet, target: str) -> None:
    match target:
        case "coordinator":
            fleet.kill_cloud_child("coordinator")
        case "worker":
            fleet.kill_campaign_workers()
        case device_id:
            fleet.kill_agent(device_id)
            fleet.start_agent(device_id, options=OPTIONS)
