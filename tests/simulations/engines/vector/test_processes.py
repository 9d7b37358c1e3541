"""Workers: what they are told reaches them, what they raise comes back, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cloud.aggregation.errors import NothingToAggregateError
from cloud.aggregation.rule import Fold
from simulations.engines.errors import WorkerDiedError, WorkerFailedError
from simulations.engines.port import Assignment, LocalTraining, Sgd, Trained
from simulations.engines.vector.engine import VectorEngine, VectorSettings
from simulations.engines.vector.processes.pool import Pool
from tests.simulations.engines.problems import Rows, dense, problem, start_of, uneven

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked"),
]


def test_tensors_reach_workers_and_come_back_whatever_their_size_and_type() -> None:
    def work(message: Any) -> dict[str, torch.Tensor]:
        (scale, values), part = message
        return {"found": values[part] * scale, "none": values[:0]}

    pool = Pool(work, 2)
    for size in (3, 1_000_000):  # the second is more than the first memory holds
        values = torch.arange(2 * size, dtype=torch.float64).view(size, 2).t()
        found = pool.run((2, values), [0, 1])
        torch.testing.assert_close(torch.stack([reply["found"] for reply in found]), 2 * values)
        assert found[0]["none"].shape == (0, size)
    pool.close()


def test_what_the_work_raises_is_raised_here() -> None:
    with pytest.raises(NothingToAggregateError, match="nothing"):
        Pool(failing(NothingToAggregateError("nothing")), 1).run(None, [0])
    with pytest.raises(WorkerFailedError, match="ZeroDivisionError: by zero") as caught:
        Pool(failing(ZeroDivisionError("by zero")), 1).run(None, [0])
    assert "raise error" in caught.value.__notes__[0]


def failing(error: Exception) -> Callable[[Any], object]:
    def work(message: Any) -> object:
        raise error

    return work


def test_a_worker_that_is_killed_is_named_and_the_next_round_has_new_ones() -> None:
    subject = problem(dense)
    engine = VectorEngine(subject, LocalTraining(Sgd(0.1)), VectorSettings(2, trial_s=0.01, cache_folder=None))
    assignment = uneven(start_of(subject))
    expected = engine.train(assignment, Rows())["deltas"]
    with pytest.raises(WorkerDiedError, match="was killed by SIGKILL"):
        engine.train(assignment, Killing())
    torch.testing.assert_close(engine.train(assignment, Rows())["deltas"], expected)
    engine.close()


class Killing(Rows):
    """As the kernel does when memory runs out."""

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_collector_without_a_name_is_inherited_instead() -> None:
    class Local(Rows):
        pass

    subject = problem(dense)
    engine = VectorEngine(subject, LocalTraining(Sgd(0.1)), VectorSettings(2, trial_s=0.01, cache_folder=None))
    assignment = uneven(start_of(subject))
    expected = engine.train(assignment, Rows())["deltas"]
    torch.testing.assert_close(engine.train(assignment, Local())["deltas"], expected)
    assert any("forked anew" in note for note in engine.notes)
    engine.close()


def test_workers_train_after_the_parent_used_torchs_threads() -> None:
    torch.set_num_threads(2)
    large = torch.randn(500, 500, requires_grad=True)
    (large @ large).relu().sum().backward()  # type: ignore[no-untyped-call]
    subject = problem(dense)
    engine = VectorEngine(subject, LocalTraining(Sgd(0.1)), VectorSettings(2, trial_s=0.01, cache_folder=None))
    assert engine.train(uneven(start_of(subject)), Rows())["times"].tolist() == [1] * 7
    assert torch.get_num_threads() == 2
    engine.close()


def test_no_worker_outlives_a_killed_parent() -> None:
    program = (
        "import os, time\n"
        "from simulations.engines.vector.processes.pool import Pool\n"
        "pool = Pool(lambda message: os.getpid(), 2)\n"
        "print(*pool.run(None, [0, 1]), flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).parents[4]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, workers))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # nobody may be there to collect an orphan
