"""An operator's day through the command line alone, from an empty folder to a revoked device; each answer as JSON."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shared.exit_codes import ExitCode
from simulations.demo.processes import Processes, fleetlearn

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ADDRESS = "127.0.0.72"
TASK = "digits"
DEVICES = ("press-07", "press-08")
RULES = ("--select", "sites=north", "--select", "temperature_max_c=150")


class Operator:
    """Runs commands as a person would, with the coordinator's data directory and nothing else."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self.processes = processes
        self.cloud_dir = folder / "cloud"

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            fleetlearn(*arguments),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=150,
            check=False,
        )

    def ask(self, *arguments: str | Path) -> Any:  # JSON
        """The answer of a command; the test fails with the command's own words."""
        done = self.run(*arguments, "--data", self.cloud_dir, "--json")
        assert done.returncode == ExitCode.OK, f"{arguments}: {done.stderr}"
        return json.loads(done.stdout)

    def is_answered(self) -> bool:
        return self.run("devices", "list", "--data", self.cloud_dir).returncode == ExitCode.OK

    def refused(self, *arguments: str | Path) -> str:
        """Why a command did not succeed, on standard error."""
        done = self.run(*arguments, "--data", self.cloud_dir)
        assert done.returncode == ExitCode.FAILED, f"{arguments}: {done.stdout}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def wait_until(self, what: str, is_true: Callable[[], bool], *, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_true():
            self.processes.check()
            assert time.monotonic() < deadline, f"expected {what} within {timeout_s} s"
            time.sleep(0.2)

    def enrol(self, device_id: str, *, number: int) -> None:
        folder = self.folder / device_id
        token = self.ask("tokens", "create", "--device-id", device_id, "--tag", "site=north")["token"]
        enrolled = self.run("agent", "enrol", "--state", folder / "state", "--device-id", device_id, "--token", token)
        assert enrolled.returncode == ExitCode.OK, enrolled.stderr
        data = self.run("task", "data", TASK, "--slice", f"block-{number}", "--out", folder / "data")
        assert data.returncode == ExitCode.OK, data.stderr
        pace = ["--heartbeat-s", "2", "--report-window-s", "2"]
        folders: list[str | Path] = ["--state", folder / "state", "--data", folder / "data"]
        self.processes.start(device_id, ["agent", "run", *folders, "--serve-port", "0", *pace])


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    with Processes(log_dir=folder / "logs") as processes:
        processes.start("cloud", ["up", "--data", folder / "cloud", "--address", ADDRESS])
        running = Operator(folder, processes)
        running.wait_until("a coordinator", running.is_answered)
        yield running


def test_a_day(operator: Operator) -> None:
    _sees_an_empty_fleet(operator)
    _enrols_two_devices(operator)
    model_id = _trains_with_privacy(operator)
    _asks_about_a_feature(operator)
    _sees_what_privacy_was_spent_on(operator, model_id)
    _records_the_fleet(operator)
    release_id = _packages_and_publishes(operator, model_id)
    _stops_a_rollout(operator, release_id)
    _rolls_out_in_two_waves(operator, release_id)
    _closes_no_alert(operator)
    _revokes_a_device(operator)


def _sees_an_empty_fleet(operator: Operator) -> None:
    for name in ("devices", "campaigns", "analytics", "models", "releases", "rollouts", "alerts"):
        assert operator.ask(name, "list") == []
        assert operator.run(name, "list", "--data", operator.cloud_dir).stdout.startswith("No ")


def _enrols_two_devices(operator: Operator) -> None:
    for number, device_id in enumerate(DEVICES):
        operator.enrol(device_id, number=number)
    operator.wait_until("both online", lambda: all(d["is_online"] for d in operator.ask("devices", "list")))
    shown = operator.ask("devices", "show", "press-07")
    assert (shown["device_id"], shown["tags"]) == ("press-07", {"site": "north"})
    assert shown["live"]["memory_free_bytes"] > 0
    assert shown["live"]["data_age_s"] is not None
    assert "'press-99'" in operator.refused("devices", "show", "press-99")


def _trains_with_privacy(operator: Operator) -> str:
    job = operator.ask("models", "train", TASK, "--wait")
    base_id = job["result"]["model_version_id"]
    asked = ("--rounds", "2", "--epsilon", "4", "--compression", "int8+feedback", *RULES)
    campaign = operator.ask("campaigns", "start", TASK, "--model", base_id, *asked, "--wait")
    assert (campaign["state"], campaign["rounds_done"]) == ("done", 2)
    assert set(campaign["selection"]["sites"]) == {"north"}
    spent = [outcome["privacy"]["epsilon"] for outcome in campaign["history"][-1]["devices"]]
    assert len(spent) == len(DEVICES)
    assert all(0 < epsilon <= 4 for epsilon in spent)
    _counts_fewer_bytes(campaign)
    model_id = str(campaign["result_model_version_id"])
    approved = operator.ask("models", "approve", model_id)
    assert approved["stage"] == "approved"
    return model_id


def _asks_about_a_feature(operator: Operator) -> None:
    """Both devices answer with noise, their ledgers pay for it, and what would overspend is refused."""
    question = ("analytics", "run", TASK, "--feature", "ink", "--low", "0", "--high", "1", "--quorum", "2")
    asked = operator.ask(*question, "--epsilon", "2", "--quantile", "0.5")
    assert (asked["state"], asked["findings"]["devices"]) == ("done", len(DEVICES))
    assert [round(each["epsilon"], 1) for each in asked["privacy_spent"]] == [2.0, 2.0]
    # What training cost before is in the same ledger.
    assert all(each["ledger"]["epsilon"] > 2.5 for each in asked["privacy_spent"])
    mean = asked["findings"]["mean"]
    assert 0 < mean["error"] < 0.2
    assert abs(mean["value"] - 0.31) < 5 * mean["error"]
    drawn = operator.run("analytics", "show", asked["analysis_id"], "--data", operator.cloud_dir).stdout
    assert "quantile 0.5" in drawn
    assert "█" in drawn
    assert "at most epsilon" in operator.refused(*question, "--epsilon", "50")


def _sees_what_privacy_was_spent_on(operator: Operator, model_id: str) -> None:
    """Training and question composed, by the coordinator as by each ledger; and who cannot pay for one more."""

    def accounts() -> list[dict[str, Any]]:  # JSON
        return list(operator.ask("devices", "privacy"))

    def agree() -> bool:
        return all(abs((each["epsilon_ledger"] or 0) - each["epsilon_asked"]) < 1e-6 for each in accounts())

    operator.wait_until("ledgers that say what they were asked for", agree)
    found = accounts()
    assert sorted(each["device_id"] for each in found) == list(DEVICES)
    for account in found:
        alone = [each["epsilon"] for each in account["campaigns"]]
        assert len(alone) == 2
        assert max(alone) < account["epsilon"] < sum(alone)
        assert account["epsilon_left"] == account["epsilon_limit"] - account["epsilon"]
    asked = ("campaigns", "start", TASK, "--model", model_id, "--plan", "--rounds", "4", "--epsilon")
    refusals = operator.ask(*asked, "9.5")["would_refuse"]
    assert [each["device_id"] for each in refusals] == list(DEVICES)
    assert all(0 < each["rounds"] < 4 for each in refusals)
    assert operator.ask(*asked, "1")["would_refuse"] == []
    # The device with all its data has spent nothing, and its owner's limit is known all the same.
    refusals = operator.ask(*asked, "1", "--user", "noise_multiplier=0.1", "--user", "clip_norm=1")["would_refuse"]
    assert [(each["device_id"], each["dataset_id"], each["rounds"]) for each in refusals] == [
        (device_id, "device", 0) for device_id in DEVICES
    ]


def _counts_fewer_bytes(campaign: dict[str, Any]) -> None:  # JSON
    """Updates went up as they were asked for; in the second round models came down as differences."""
    first, second = campaign["history"]
    assert {outcome["compression"] for outcome in second["devices"]} == {"int8"}
    assert second["bytes_up"] < second["bytes_up_raw"] / 3
    assert first["bytes_down"] == first["bytes_down_raw"]
    assert second["bytes_down"] < second["bytes_down_raw"]


def _records_the_fleet(operator: Operator) -> None:
    """What the two devices did becomes a file, and simulated clients take as long as they did."""
    path = operator.folder / "fleet.csv"
    rows = operator.ask("campaigns", "trace", path)["rows"]
    assert [row["outcome"] for row in rows if row["kind"] == "work"] == ["done"] * 2 * len(DEVICES)
    experiment, results = operator.folder / "replay.toml", operator.folder / "replay"
    experiment.write_text(f'data = "{TASK}"\nrounds = 2\ncohort.clients = 4\nbehaviour.trace = "{path}"\n')
    simulated = operator.run("simulate", experiment, "--out", results, "--json")
    assert simulated.returncode == ExitCode.OK, simulated.stderr
    assert any("2 recorded devices" in note for note in json.loads(simulated.stdout)["notes"])
    _, first_s, second_s = pq.read_table(results / "metrics.parquet").column("clock_s").to_pylist()
    assert 0 < first_s < second_s


def _packages_and_publishes(operator: Operator, model_id: str) -> str:
    release_id = str(operator.ask("releases", "package", model_id, "--wait")["result"]["release_id"])
    assert operator.ask("releases", "show", release_id)["stage"] == "draft"
    publish: list[str | Path] = ["releases", "publish", release_id, "--yes", "--keys"]
    assert "targets.pem" in operator.refused(*publish, operator.folder)
    assert operator.ask(*publish, operator.cloud_dir / "offline-keys")["stage"] == "published"
    return release_id


def _stops_a_rollout(operator: Operator, release_id: str) -> None:
    assert "Not confirmed" in operator.refused("rollouts", "start", release_id)  # nobody answers the question
    (unconfirmed,) = operator.ask("rollouts", "list")
    assert unconfirmed["state"] == "stopped"
    planned = operator.ask("rollouts", "plan", release_id, "--soak-s", "60")
    assert operator.ask("rollouts", "go", planned["rollout_id"], "--yes")["state"] == "running"
    assert operator.ask("rollouts", "stop", planned["rollout_id"])["state"] == "stopped"


def _rolls_out_in_two_waves(operator: Operator, release_id: str) -> None:
    waves = ["--wave", "0.5", "--wave", "1", "--soak-s", "1"]
    started = operator.ask("rollouts", "start", release_id, *waves, "--yes")
    # The rollout that was stopped may have moved its canary already, which keeps the release.
    assert 1 <= sum(len(wave["devices"]) for wave in started["waves"]) <= len(DEVICES)
    rollout_id = started["rollout_id"]
    operator.wait_until("a finished rollout", lambda: operator.ask("rollouts", "show", rollout_id)["state"] == "done")
    operator.wait_until("both on the release", lambda: _releases(operator) == {release_id})
    assert "done" in operator.refused("rollouts", "resume", rollout_id)


def _releases(operator: Operator) -> set[str | None]:
    return {device["release_id"] for device in operator.ask("devices", "list")}


def _closes_no_alert(operator: Operator) -> None:
    assert operator.ask("alerts", "list", "--open") == []
    assert "'nothing'" in operator.refused("alerts", "close", "nothing")


def _revokes_a_device(operator: Operator) -> None:
    assert "Not confirmed" in operator.refused("devices", "revoke", "press-08")
    assert operator.ask("devices", "revoke", "press-08", "--yes")["is_revoked"]
    operator.processes.forget("press-08")  # it ends by itself
    assert [device["is_revoked"] for device in operator.ask("devices", "list")].count(True) == 1
    serving = json.loads((operator.folder / "press-07" / "state" / "serving.json").read_text())
    assert serving["url"].startswith("http://127.0.0.1:")
