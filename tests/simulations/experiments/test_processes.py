"""An experiment that several processes share ends where one process alone would, broken off or not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from socket import socket

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from simulations.engines.processes import joined
from simulations.experiments.progress import Nobody
from simulations.experiments.run import resume, run
from simulations.experiments.text import toml_of
from simulations.results.result import Result
from tests.simulations.experiments.test_run import StopsAfter, assert_same, experiment

EXPERIMENT = experiment(engine="reference", seeds=[0, 1])
COUNT = 2


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(COUNT)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": Path(folder, "port").read_text(encoding="ascii")}
    with joined() as processes:
        whole = run(EXPERIMENT, processes=processes)
        watcher = StopsAfter(5) if processes.is_first else Nobody()
        results = Path(folder, "r")
        stopped = run(EXPERIMENT, folder=results, watcher=watcher, processes=processes)
        assert stopped.interrupted
        resumed = resume(results, processes=processes)
        assert resumed.folder == (results if processes.is_first else None)
        torch.save((whole, resumed), Path(folder, f"{rank}.pt"))


def assert_close(one: Result, other: Result) -> None:
    for seed, model in one.models.items():
        for name, tensor in model.items():
            expected = torch.from_numpy(other.models[seed][name])
            torch.testing.assert_close(torch.from_numpy(tensor), expected, rtol=0, atol=1e-6)


@pytest.mark.processes
def test_shared_broken_off_and_gone_on_with_it_is_the_run_of_one(tmp_path: Path) -> None:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]), encoding="ascii")
    spawn(process, (str(tmp_path),), nprocs=COUNT)  # type: ignore[no-untyped-call]  # torch
    alone = run(EXPERIMENT)
    for rank in range(COUNT):
        whole, resumed = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert_same(resumed, whole)
        assert_close(whole, alone)


@pytest.mark.processes
def test_torchrun_starts_them_and_one_speaks(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(toml_of(EXPERIMENT), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={COUNT}"]
    program = ["-m", "simulations.simulate", str(tmp_path / "e.toml"), "--out", str(tmp_path / "r"), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*launcher, *program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert any("shared among 2 processes" in note for note in said["notes"])
    assert said["accuracy"] == pytest.approx(run(EXPERIMENT).accuracy, abs=0.01)
