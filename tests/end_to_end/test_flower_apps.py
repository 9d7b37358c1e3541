"""Unmodified Flower apps on a fleet of real processes: PyTorch, scikit-learn, XGBoost, and one through a kill -9."""

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
import xgboost
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

from fleet import calls
from fleet.waiting import FINAL_STATES, wait_for, wait_for_campaign
from shared.api.campaigns import Campaign, FlowerCampaignCreate, FlowerRun
from shared.flower_apps import ConfigValue, FlowerApp, read_app
from shared.lifecycles import JobState
from simulations.demo.processes import run_once
from tests.support.fleet import PATIENCE, Fleet

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

APPS = Path(__file__).parents[1] / "flower_apps"
DEVICES = ("unit-a", "unit-b")
ROUNDS = 40
LATER = "legacy-numpy"
"""Installed on the devices while their agents run."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with Fleet(folder, address="127.0.0.83", agent_options=partial(_as_the_owner_wants, folder / "apps")) as running:
        _install(folder / "apps", *(path.name for path in APPS.iterdir() if path.name != LATER))
        shutil.copytree(APPS, running.cloud_dir / "flower-apps", ignore=shutil.ignore_patterns("__pycache__"))
        for number, device_id in enumerate(DEVICES):
            running.enrol(device_id, number=number)
        yield running


def _as_the_owner_wants(apps: Path, number: int) -> Sequence[str | Path]:
    node_config = f"partition-id={number} num-partitions={len(DEVICES)}"
    return ["--flower-apps", apps, "--node-config", node_config, "--allow-without-privacy"]


def _install(apps: Path, *names: str) -> None:
    for name in names:
        shutil.copytree(APPS / name, apps / name, ignore=shutil.ignore_patterns("__pycache__"))


def _start(fleet: Fleet, name: str, **config: ConfigValue) -> Campaign:
    app = read_app(APPS / name)
    return fleet.client.send(calls.create_flower_campaign(_asked(app, config)))


def _asked(app: FlowerApp, config: dict[str, ConfigValue]) -> FlowerCampaignCreate:
    run = FlowerRun(app=app.name, version=app.version, digest=app.digest, config=config)
    return FlowerCampaignCreate(flower=run, round_timeout_s=60)


def _end(fleet: Fleet, started: Campaign) -> Path:
    """The folder that the app left behind."""
    done = wait_for_campaign(fleet.client, started.campaign_id, patience=PATIENCE)
    assert done.flower is not None
    assert all(device.status == "done" for each in done.history for device in each.devices)
    return Path(done.flower.folder)


@pytest.fixture(scope="module")
def quickstarts(fleet: Fleet) -> dict[str, Campaign]:
    """Three at a time, who take turns on the devices."""
    app = str(APPS / "quickstart-pytorch")
    command = ["campaigns", "start", "--flower-app", app, "--set", "local-epochs=3", "--json"]
    by_command = Campaign.model_validate_json(run_once([*command, "--data", str(fleet.cloud_dir)], timeout_s=60))
    others = {name: _start(fleet, name) for name in ("quickstart-sklearn", "quickstart-xgboost")}
    return {"quickstart-pytorch": by_command, **others}


def test_the_pytorch_quickstart_learns(fleet: Fleet, quickstarts: dict[str, Campaign]) -> None:
    weights = torch.load(_end(fleet, quickstarts["quickstart-pytorch"]) / "final_model.pt")

    digits = load_digits()
    hidden = torch.relu(torch.tensor(digits.data / 16).float() @ weights["fc1.weight"].T + weights["fc1.bias"])
    found = (hidden @ weights["fc2.weight"].T + weights["fc2.bias"]).argmax(1).numpy()
    assert (found == digits.target).mean() > 0.85
    shown = fleet.client.send(calls.campaign(quickstarts["quickstart-pytorch"].campaign_id))
    assert (shown.rounds_done, shown.rounds) == (3, 3)
    assert shown.flower is not None
    assert shown.flower.config["local-epochs"] == 3


def test_the_scikit_learn_quickstart_learns(fleet: Fleet, quickstarts: dict[str, Campaign]) -> None:
    model = joblib.load(_end(fleet, quickstarts["quickstart-sklearn"]) / "logreg_model.pkl")
    assert model.score(*load_iris(return_X_y=True)) > 0.8


def test_the_xgboost_quickstart_learns(fleet: Fleet, quickstarts: dict[str, Campaign]) -> None:
    left = _end(fleet, quickstarts["quickstart-xgboost"])
    booster = xgboost.Booster()
    booster.load_model(left / "final_model.json")
    data, labels = load_breast_cancer(return_X_y=True)
    assert booster.num_boosted_rounds() == 4  # two rounds, a tree of each device
    assert ((booster.predict(xgboost.DMatrix(data)) > 0.5) == labels).mean() > 0.9


def test_an_app_installed_while_the_agents_run_is_told_and_runs_without_a_restart(fleet: Fleet) -> None:
    app = read_app(APPS / LATER)
    assert app.task not in _reported(fleet, DEVICES[0])

    _install(fleet.folder / "apps", LATER)
    fleet.wait_until(
        f"{LATER} on all", lambda: all(app.task in _reported(fleet, each) for each in DEVICES), timeout_s=90
    )
    assert _reported(fleet, DEVICES[0])[app.task] == app.content
    _end(fleet, _start(fleet, LATER))


def _reported(fleet: Fleet, device_id: str) -> dict[str, str]:
    return fleet.client.send(calls.device(device_id)).tasks


def test_a_killed_coordinator_resumes_an_app_to_the_same_bits_and_stops_one_that_does_something_else(
    fleet: Fleet,
) -> None:
    same = _start(fleet, "numpy-state", **{"num-server-rounds": ROUNDS})
    other = _start(fleet, "numpy-state", **{"num-server-rounds": 100 * ROUNDS, "use-clock": True})
    for campaign in (same, other):
        _wait_for_round(fleet, campaign, done=3)
    fleet.kill_cloud_child("coordinator")

    for found, expected in zip(_result(_end(fleet, same)), _undisturbed(), strict=True):
        np.testing.assert_array_equal(found, expected)
    find = calls.campaign(other.campaign_id)
    stopped = wait_for(fleet.client, find, is_over=lambda one: one.state in FINAL_STATES, patience=PATIENCE)
    assert stopped.state is JobState.FAILED
    assert "what it sent before it was interrupted" in stopped.error
    assert "'now' of the record 'config'" in stopped.error


def _undisturbed() -> list[np.ndarray]:
    """What the app computes of its first random numbers, as Flower's FedAvg averages: 1 and 2, weighted by 1 and 2."""
    np.random.seed(0)
    arrays: list[np.ndarray] = [np.random.rand(4), np.zeros((2, 3), np.float32)]
    for _ in range(ROUNDS):
        replies = [[array + by for array in arrays] for by in (1, 2)]
        arrays = [one * (1 / 3) + two * (2 / 3) for one, two in zip(*replies, strict=True)]
    return arrays


def _wait_for_round(fleet: Fleet, campaign: Campaign, *, done: int) -> None:
    find = calls.campaign(campaign.campaign_id)
    fleet.wait_until(f"round {done}", lambda: fleet.client.send(find).rounds_done >= done, timeout_s=90)


def _result(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "result.npz") as found:
        return [found[name] for name in sorted(found.files)]
