"""Searches: conditions, conditional architectures, several objectives, stops and restarts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from simulations.experiments.errors import ExperimentError
from simulations.simulate.__main__ import main
from simulations.sweeps.settings import Sweep, read_sweep
from simulations.sweeps.suggest import suggested, with_values
from tests.support.postgresql import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]
EXPERIMENT = """
rounds = 3
population = { clients = 6 }
cohort = { clients = 3 }
local = { batch_size = 40 }
"""
SWEEP = """
experiment = "e.toml"
trials = 6
[parameters]
"local.optimizer.learning_rate" = { low = 0.01, high = 1.0, log = true }
"model.kind" = { choices = ["linear", "mlp"] }
"_depth" = { low = 1, high = 2, when = { "model.kind" = ["mlp"] } }
"model.hidden.0" = { low = 8, high = 32, when = { "model.kind" = ["mlp"] } }
"model.hidden.1" = { low = 8, high = 32, when = { "_depth" = [2] } }
"""


class Fixed:
    """A trial whose answers are known."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return json.dumps(self._answers[name])

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        return int(self._answers[name])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return float(self._answers[name])


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "s.toml").write_text(SWEEP, encoding="utf-8")
    return tmp_path / "s.toml"


def test_a_layer_s_size_is_asked_only_where_the_layer_is(sweep: Path) -> None:
    settings = read_sweep(sweep)
    answers = {"local.optimizer.learning_rate": 0.1, "model.hidden.0": 9, "model.hidden.1": 8}
    shallow = suggested(settings, Fixed(**answers, **{"model.kind": "mlp", "_depth": 1}))
    assert with_values({"model": "linear"}, shallow)["model"] == {"kind": "mlp", "hidden": [9]}
    deep = suggested(settings, Fixed(**answers, **{"model.kind": "mlp", "_depth": 2}))
    assert with_values({}, deep)["model"]["hidden"] == [9, 8]
    linear = suggested(settings, Fixed(**answers, **{"model.kind": "linear"}))
    assert with_values({}, linear) == {"local": {"optimizer": {"learning_rate": 0.1}}, "model": {"kind": "linear"}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objectives": ["acuracy"]}, "expected objectives among"),
        ({"objectives": ["test_accuracy", "-bytes_up"], "pruner": "hyperband"}, "expected one objective"),
        ({"parameters": {"rounds": {"low": 3, "high": 1}}}, "expected low below high"),
    ],
)
def test_what_cannot_be_searched_is_refused(changed: dict[str, Any], said: str) -> None:
    base = {"experiment": "e.toml", "parameters": {"rounds": {"choices": [1, 2]}}}
    with pytest.raises(ValueError, match=said):
        Sweep.model_validate(base | changed)


@pytest.mark.processes
def test_a_search_that_is_killed_goes_on_and_ends_with_all_its_trials(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", str(sweep), "--out", str(tmp_path / "r"), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "simulations.simulate", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    _wait_for(tmp_path / "r" / "trials.sqlite")
    process.send_signal(signal.SIGINT)
    process.wait(timeout=100)
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["best"][0]["values"][0] > 0.1
    assert (tmp_path / "r" / "best.toml").is_file()
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "<b>6</b><span>trials complete</span>" in page


@pytest.mark.postgresql
@pytest.mark.processes
def test_a_database_of_many_machines_holds_the_search(sweep: Path, tmp_path: Path, postgresql_url: str) -> None:
    plain = postgresql_url.replace("postgresql+psycopg://", "postgresql://")
    shared = SWEEP.replace("trials = 6", f'trials = 2\nstorage = "{plain}"')
    sweep.write_text(shared, encoding="utf-8")
    command = [sys.executable, "-m", "simulations.simulate", "sweep", str(sweep), "--json", "--out"]
    for machine in ("one", "other"):
        done = subprocess.run(
            [*command, str(tmp_path / machine)],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert "<b>2</b><span>trials complete</span>" in (tmp_path / machine / "report.html").read_text()
        assert not (tmp_path / machine / "trials.sqlite").exists()


def test_a_sweep_that_is_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"s\.toml"):
        read_sweep(tmp_path / "s.toml")


def _wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"no {path.name} in a minute")
