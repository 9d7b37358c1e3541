"""The main job while processes die: each kill is SIGKILL, each restart finds its state, nothing is lost.

The last test kills at random moments: five times here, fifty in `make soak`. It prints its seed; FLEETLEARN_SOAK_SEED
repeats the choice of what is killed and when, though not what the machine makes of it.
"""

import contextlib
import os
import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import calls
from fleet.waiting import wait_for, wait_for_campaign
from shared.api.campaigns import Campaign, CampaignCreate, PrivacyBudget, SecureAggregation
from shared.api.rollouts import Rollout, RolloutCreate
from shared.lifecycles import JobState, ReleaseState, RolloutState
from shared.tasks.task import Role
from shared.tensors import MalformedTensorsError, decode
from simulations.demo.inference import InferenceClient
from tests.support.fleet import PATIENCE, Fleet
from tests.support.replay import Replay

KILLS = int(os.environ.get("FLEETLEARN_SOAK_KILLS", "5"))
SEED = int(os.environ.get("FLEETLEARN_SOAK_SEED", str(secrets.randbits(32))))
ROUNDS = 8
CAMPAIGNS_MAX = KILLS + 1
PAUSE_MAX_S = 1.5
DEVICES = ("unit-a", "unit-b", "unit-c")
TARGETS = ("coordinator", "worker", *DEVICES)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400 + 60 * KILLS)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    running = Fleet(
        tmp_path_factory.mktemp("fleet"),
        address="127.0.0.50",
        # A worker that dies again and again would be given up; here that is no fault of its job.
        environment={"FLEETLEARN_JOB_RESTARTS_MAX": str(KILLS)},
        agent_options=lambda number: ("--allow-without-privacy",),
    )
    with running:
        for number, device_id in enumerate(DEVICES):
            running.enrol(device_id, number=number)
        yield running


def test_a_campaign_and_a_rollout_survive_every_kill(fleet: Fleet) -> None:
    campaign = _start_campaign(fleet, rounds=4)
    _wait_for_round(fleet, campaign, done=1)
    fleet.kill_agent("unit-a")  # most likely in training: rounds follow each other at once
    fleet.start_agent("unit-a")
    _wait_for_round(fleet, campaign, done=2)
    fleet.kill_cloud_child("coordinator")
    _wait_for_round(fleet, campaign, done=3)
    fleet.kill_cloud_child("hub")
    finished = wait_for_campaign(fleet.client, campaign.campaign_id, patience=PATIENCE)

    assert finished.rounds_done == 4
    assert all(sum(d.status == "done" for d in r.devices) >= 2 for r in finished.history if r.state == "done")
    spent = [fleet.device(device_id).privacy for device_id in DEVICES]
    assert all(balance and balance[0].epsilon <= 8.01 for balance in spent)

    release = fleet.publish(str(finished.result_model_version_id))
    rollout = _start_rollout(fleet, release.release_id)
    fleet.wait_until("a device that is asked", lambda: _moving(fleet, rollout) != [], timeout_s=30)
    first = _moving(fleet, rollout)[0]
    fleet.kill_agent(first)  # during download, verification or activation
    fleet.kill_cloud_child("coordinator")
    fleet.start_agent(first)
    done = wait_for(
        fleet.client,
        calls.rollout(rollout.rollout_id),
        is_over=lambda r: r.state not in (RolloutState.PLANNED, RolloutState.RUNNING),
        patience=PATIENCE,
    )

    assert done.state is RolloutState.DONE, done.reason
    for device_id in DEVICES:
        assert _right(fleet, device_id) > 0.5


def test_what_was_served_while_the_hub_was_dead_is_told_once_it_is_back(fleet: Fleet) -> None:
    def told() -> int:
        return sum(window.examples for window in fleet.client.send(calls.serving_windows("unit-b")))

    fleet.wait_until("a window of what was served before", lambda: told() > 0, timeout_s=60)
    before = told()
    fleet.kill_cloud_child("hub")
    assert _right(fleet, "unit-b") > 0.5
    fleet.wait_until("a window of what was served while it was dead", lambda: told() == before + 64, timeout_s=60)


def test_an_agent_that_starts_offline_serves_what_it_has(fleet: Fleet) -> None:
    fleet.kill_agent("unit-c")
    fleet.kill_cloud_child("hub")
    fleet.start_agent("unit-c")
    fleet.wait_until("answers", lambda: _right(fleet, "unit-c") > 0.5, timeout_s=30)
    assert fleet.device("unit-c").release_state is ReleaseState.ACTIVE


def test_a_campaign_of_sums_survives_a_kill_and_stores_no_update(fleet: Fleet) -> None:
    before = _stored_models(fleet)
    request = CampaignCreate(
        task=fleet.task.name,
        model_version_id=fleet.client.send(calls.models())[0].model_version_id,
        rounds=2,
        privacy=PrivacyBudget(epsilon=1),
        quorum=3,
        secure=SecureAggregation(clients_min=3, dropout_share=0.0),
    )
    campaign = fleet.client.send(calls.create_campaign(request))
    _wait_for_round(fleet, campaign, done=1)
    fleet.kill_cloud_child("coordinator")
    finished = wait_for_campaign(fleet.client, campaign.campaign_id, patience=PATIENCE)

    assert finished.rounds_done == 2
    # What is stored as tensors is each round's model, and nothing that devices sent.
    assert _stored_models(fleet) == before + 2


def test_kills_at_random_moments_change_no_bit_of_the_result(fleet: Fleet, tmp_path: Path) -> None:
    print(f"FLEETLEARN_SOAK_SEED={SEED}")
    moments, killed = random.Random(SEED), 0
    known = fleet.client.send(calls.models())  # none where this test runs alone
    start = (known[-1] if known else fleet.train_base()).model_version_id
    for _ in range(CAMPAIGNS_MAX):
        campaign = _start_without_privacy(fleet, start)
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


def _start_campaign(fleet: Fleet, *, rounds: int) -> Campaign:
    base = fleet.train_base()
    request = CampaignCreate(
        task=fleet.task.name,
        model_version_id=base.model_version_id,
        rounds=rounds,
        privacy=PrivacyBudget(epsilon=8),
        quorum=2,
        round_timeout_s=60,
    )
    return fleet.client.send(calls.create_campaign(request))


def _stored_models(fleet: Fleet) -> int:
    """Objects of the coordinator that are tensors."""
    count = 0
    for path in (fleet.cloud_dir / "blobs").rglob("*"):
        with contextlib.suppress(MalformedTensorsError):
            count += path.is_file() and bool(decode(path.read_bytes()))
    return count


def _wait_for_round(fleet: Fleet, campaign: Campaign, *, done: int) -> None:
    def has_come() -> bool:
        now = fleet.client.send(calls.campaign(campaign.campaign_id))
        assert now.state not in (JobState.FAILED, JobState.CANCELLED), now.error
        return now.rounds_done >= done

    fleet.wait_until(f"round {done}", has_come, timeout_s=120)


def _start_rollout(fleet: Fleet, release_id: str) -> Rollout:
    planned = fleet.client.send(
        calls.plan_rollout(RolloutCreate(release_id=release_id, wave_fractions=[0.34, 1.0], soak_s=1))
    )
    return fleet.client.send(calls.start_rollout(planned.rollout_id))


def _moving(fleet: Fleet, rollout: Rollout) -> list[str]:
    now = fleet.client.send(calls.rollout(rollout.rollout_id))
    return [d.device_id for wave in now.waves for d in wave.devices if d.state != "waiting"]


def _right(fleet: Fleet, device_id: str) -> float:
    examples = fleet.task.central_data(Role.UNSEEN)
    with InferenceClient(fleet.serving_url(device_id), model=fleet.task.name, schema=fleet.task.schema) as client:
        if not client.is_ready():
            return 0.0
        answers = client.infer_binary(examples.inputs[:64]).outputs.argmax(axis=1)
    return float((answers == examples.labels[:64]).mean())


def _start_without_privacy(fleet: Fleet, model_version_id: str) -> Campaign:
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
            fleet.start_agent(device_id)
