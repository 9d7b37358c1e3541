"""Processes that share a cohort, over gloo on this machine, hold what one process would."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed
from torch.multiprocessing.spawn import spawn

from cloud.aggregation.rule import Fold
from simulations.engines.cuda.engine import CudaEngine, CudaOptions
from simulations.engines.distributed import DistributedEngine
from simulations.engines.port import Assignment, LocalTraining, Sgd
from simulations.engines.shares import shares
from tests.simulations.engines.cuda.cohorts import Rows, dense_net, problem, reference, unequal_round

LOCAL = LocalTraining(Sgd(0.1, momentum=0.5))


class Added(Rows):
    """Rows that begin as zeros: folds of shares add up."""

    def begin(self, assignment: Assignment) -> Fold:
        return {name: torch.zeros_like(value) for name, value in super().begin(assignment).items()}


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=3)
    small = problem(dense_net)
    engine = DistributedEngine(CudaEngine(small, LOCAL, CudaOptions(device="cpu")))
    whole = engine.train(own_starts(), Added())
    few = replace(own_starts(), clients=torch.tensor([1]), batches=own_starts().batches[:1], steps=torch.tensor([2]))
    one = engine.train(replace(few, start=few.start[:1], seeds=few.seeds[:1]), Added())
    torch.save((whole, one), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def own_starts() -> Assignment:
    plan = unequal_round(problem(dense_net))
    return replace(plan, start=plan.start + torch.arange(5.0)[:, None] / 100)


@pytest.mark.processes
def test_three_processes_hold_what_one_would(tmp_path: Path) -> None:
    spawn(process, (str(tmp_path),), nprocs=3)  # type: ignore[no-untyped-call]  # torch
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    expected = reference(problem(dense_net), LOCAL, own_starts())
    for whole, one in found:
        torch.testing.assert_close(whole["deltas"], expected["deltas"], rtol=0, atol=1e-6)
        torch.testing.assert_close(one["deltas"], expected["deltas"][:1], rtol=0, atol=1e-6)


def process_with_card(rank: int, folder: str, processes: int) -> None:
    torch.cuda.set_device(rank)
    rendezvous = f"file://{folder}/rendezvous"
    distributed.init_process_group("cpu:gloo,cuda:nccl", init_method=rendezvous, rank=rank, world_size=processes)
    engine = DistributedEngine(CudaEngine(problem(dense_net), LOCAL, CudaOptions(device=f"cuda:{rank}")))
    there = replace(own_starts(), start=own_starts().start.cuda())
    here = engine.train(own_starts(), Added())
    torch.save((here, engine.train(there, Added())), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_process_for_each_card_over_nccl_holds_what_one_process_would(tmp_path: Path) -> None:
    cards = torch.cuda.device_count()
    spawn(process_with_card, (str(tmp_path), cards), nprocs=cards)  # type: ignore[no-untyped-call]  # torch
    expected = reference(problem(dense_net), LOCAL, own_starts())
    for rank in range(cards):
        here, there = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(here["deltas"], expected["deltas"], rtol=0, atol=1e-5)
        torch.testing.assert_close(there["deltas"].cpu(), expected["deltas"], rtol=0, atol=1e-5)


@given(steps=st.lists(st.integers(0, 50), min_size=1, max_size=40), processes=st.integers(1, 8))
def test_every_client_is_one_processes_and_none_waits_longer_than_one_client_takes(
    steps: list[int], processes: int
) -> None:
    dealt = shares(torch.tensor(steps), processes)
    assert sorted(torch.cat(dealt).tolist()) == list(range(len(steps)))
    busy = [sum(steps[position] for position in own.tolist()) for own in dealt]
    assert max(busy) - min(busy) <= max(steps)
