"""Boosted trees on a fleet of real processes: better than a device alone, through a kill -9, and served at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.training.evaluate import evaluate
from fleet import calls
from fleet.waiting import wait_for, wait_for_campaign
from shared.api.campaigns import Campaign
from shared.api.rollouts import RolloutCreate
from shared.lifecycles import RolloutState
from shared.tasks.task import Role
from shared.trees.boosting import boosting_of
from shared.trees.ensemble import joined
from shared.trees.growing import Growth, grow
from simulations.demo.inference import InferenceClient
from simulations.demo.processes import run_once
from tests.support.fleet import PATIENCE, Fleet
from tests.support.replay import Replay

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

DEVICES = ("unit-a", "unit-b")
ROUNDS = 5


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    options = lambda number: ("--allow-without-privacy",)  # noqa: E731  # as short as it is
    with Fleet(folder, address="127.0.0.107", task="physio_trees", agent_options=options) as running:
        for number, device_id in enumerate(DEVICES):
            running.enrol(device_id, number=number)
        yield running


@pytest.fixture(scope="module")
def finished(fleet: Fleet) -> Campaign:
    """A campaign from the command line, whose coordinator is killed amid its rounds."""
    base = fleet.train_base().model_version_id
    asked = ["--model", base, "--strategy", "fedxgb_bagging", "--rounds", str(ROUNDS), "--quorum", str(len(DEVICES))]
    command: list[str | Path] = ["campaigns", "start", "physio_trees", *asked, "--json", "--data", fleet.cloud_dir]
    started = Campaign.model_validate_json(run_once(command, timeout_s=60))

    def has_begun() -> bool:
        return fleet.client.send(calls.campaign(started.campaign_id)).rounds_done >= 2

    fleet.wait_until("two rounds", has_begun, timeout_s=120)
    fleet.kill_cloud_child("coordinator")
    return wait_for_campaign(fleet.client, started.campaign_id, patience=PATIENCE)


def test_a_killed_coordinator_goes_on_to_the_same_trees(fleet: Fleet, finished: Campaign, tmp_path: Path) -> None:
    assert finished.rounds_done == ROUNDS
    assert [r.state for r in finished.history] == ["done"] * ROUNDS
    replay = Replay(fleet.cloud_dir, finished.campaign_id)
    assert replay.run(tmp_path / "replay") == replay.result.weights.digest
    # The wrong answer: one reply of one device is left out.
    others = dict(list(replay.replies.items())[1:])
    assert replay.run(tmp_path / "replay", replies=others) != replay.result.weights.digest


def test_rounds_beat_each_device_alone(fleet: Fleet, finished: Campaign) -> None:
    boosting, local = boosting_of(fleet.task), fleet.task.local_training
    assert boosting is not None
    slices = list(fleet.task.device_slices().values())[: len(DEVICES)]
    alone = [grow(boosting, joined([]), data.train, Growth(ROUNDS, local.learning_rate)) for data in slices]
    figures = [evaluate(fleet.task, each.tensors, role=Role.UNSEEN).accuracy for each in alone]
    result = fleet.client.send(calls.model(str(finished.result_model_version_id)))
    assert result.metrics["unseen_accuracy"] > max(figures)


def test_the_trees_are_rolled_out_and_served(fleet: Fleet, finished: Campaign) -> None:
    release = fleet.publish(str(finished.result_model_version_id))
    asked = RolloutCreate(release_id=release.release_id, wave_fractions=[1.0], soak_s=1)
    planned = fleet.client.send(calls.plan_rollout(asked))
    rollout = fleet.client.send(calls.start_rollout(planned.rollout_id))
    find = calls.rollout(rollout.rollout_id)
    running = (RolloutState.PLANNED, RolloutState.RUNNING)
    done = wait_for(fleet.client, find, is_over=lambda r: r.state not in running, patience=PATIENCE)
    assert done.state is RolloutState.DONE, done.reason

    examples, schema = fleet.task.central_data(Role.UNSEEN), fleet.task.schema
    with InferenceClient(fleet.serving_url(DEVICES[0]), model=fleet.task.name, schema=schema) as client:
        answers = client.infer_binary(examples.inputs).outputs.argmax(axis=1)
    accuracy = float((answers == examples.labels).mean())
    assert accuracy == pytest.approx(release.manifest.metrics["fp32_unseen_accuracy"], abs=0.002)
