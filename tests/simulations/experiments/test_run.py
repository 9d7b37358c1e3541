"""A run that is stopped or killed goes on to the very same results; no results are ever overwritten unasked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simulations.experiments.errors import ExperimentError, ResultsFolderError, RunError
from simulations.experiments.experiment import Experiment
from simulations.experiments.file import experiment_of
from simulations.experiments.progress import Nobody
from simulations.experiments.run import resume, run
from simulations.experiments.text import toml_of
from simulations.results.metrics import read_metrics
from simulations.results.result import Result
from simulations.rounds.record import RoundRecord


def experiment(**settings: object) -> Experiment:
    small = {
        "rounds": 12,
        "population": {"clients": 10},
        "cohort": {"clients": 3},
        "strategy": "scaffold",
        "checkpoint": {"every": 2},
    }
    return experiment_of(small | settings)


def assert_same(one: Result, other: Result) -> None:
    for name, values in one.metrics.without_clock().items():
        np.testing.assert_array_equal(values, other.metrics.columns[name], err_msg=name)
    for seed, model in one.models.items():
        for name, tensor in model.items():
            np.testing.assert_array_equal(tensor, other.models[seed][name], err_msg=name)


class StopsAfter(Nobody):
    def __init__(self, round: int) -> None:
        self._round, self._is_over = round, False

    def finished_round(self, seed: int, record: RoundRecord) -> None:
        self._is_over = record.round >= self._round

    def wants_to_stop(self) -> bool:
        return self._is_over


def test_updates_that_were_left_out_because_training_diverges_are_told_in_the_notes() -> None:
    settings = {"strategy": "fedavg", "rounds": 2}
    diverging = run(experiment(**settings, local={"optimizer": {"name": "sgd", "learning_rate": 1e30}}))
    assert any("Left out 6 of 6 updates" in note for note in diverging.notes)
    assert not any("Left out" in note for note in run(experiment(**settings)).notes)


@pytest.mark.parametrize("strategy", ["scaffold", "fedadam", "ditto"])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, strategy: str) -> None:
    whole = run(experiment(strategy=strategy, seeds=[0, 1]))
    stopped = run(experiment(strategy=strategy, seeds=[0, 1]), folder=tmp_path / "r", watcher=StopsAfter(5))
    assert stopped.interrupted
    assert_same(resume(tmp_path / "r"), whole)


@pytest.mark.processes
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(toml_of(experiment(rounds=60)), encoding="utf-8")
    command = [sys.executable, "-m", "simulations.simulate"]
    arguments = [str(tmp_path / "e.toml"), "--out", str(tmp_path / "r")]
    delays = np.random.default_rng(1).uniform(0.0, 0.25, 3)
    for delay in delays:
        process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL, env=_environment())
        _wait_for(lambda: any((tmp_path / "r").glob("seeds/0/checkpoint*")), process)
        time.sleep(delay)  # somewhere within a round, or while a checkpoint is written
        process.send_signal(signal.SIGKILL)
        process.wait()
        arguments = ["resume", str(tmp_path / "r")]
    assert_same(resume(tmp_path / "r"), run(experiment(rounds=60)))


@pytest.mark.processes
def test_ctrl_c_ends_the_run_after_its_round_and_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(toml_of(experiment(rounds=100_000)), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "simulations.simulate", str(tmp_path / "e.toml"), "--out", str(tmp_path / "r")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=_environment(),
    )
    _wait_for(lambda: any((tmp_path / "r").glob("seeds/0/checkpoint*")), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"fleetlearn simulate resume {tmp_path / 'r'}" in said.replace("\n", "")
    assert len(read_metrics(tmp_path / "r" / "metrics.parquet").columns["round"]) > 1


@pytest.mark.processes
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path: Path) -> None:
    """A limit on the size of a file is a disk that is full for the log of what clients keep."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from simulations.experiments.run import run\n"
        "from tests.simulations.experiments.test_run import experiment\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "run(experiment(), folder=Path(sys.argv[1]))\n"
    )
    failed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "r")],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=_environment(),
    )
    assert RunError.__name__ in failed.stderr
    assert_same(resume(tmp_path / "r"), run(experiment()))


def test_results_are_never_overwritten_unasked(tmp_path: Path) -> None:
    first = run(experiment(rounds=1), folder=tmp_path / "r")
    with pytest.raises(ResultsFolderError, match="got a run's results") as caught:
        run(experiment(rounds=2), folder=tmp_path / "r")
    assert "--overwrite" in caught.value.hint
    assert len(read_metrics(tmp_path / "r" / "metrics.parquet").columns["round"]) == len(first.metrics.columns["round"])
    assert run(experiment(rounds=2), folder=tmp_path / "r", overwrite=True).metrics.columns["round"].max() == 2


def test_files_that_no_run_made_are_not_removed_even_when_asked(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ResultsFolderError, match="files that no run made"):
        run(experiment(rounds=1), folder=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_a_cohort_larger_than_the_population_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="Expected at most 10"):
        run(experiment(cohort={"clients": 11}), folder=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if condition():
            return
        assert process.poll() is None, "the run ended before anybody could stop it"
        time.sleep(0.05)
    raise AssertionError("no checkpoint in 30 s")
