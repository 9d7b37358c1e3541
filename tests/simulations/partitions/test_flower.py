"""Our partitions beside flwr-datasets': the same distributions.

`flwr_datasets.json` holds what flwr-datasets 0.6.1 deals (6,000 examples of ten classes, 20 clients, 12 seeds): the
spread of sizes, the classes and the entropy of a client's mixture. Where the package is installed, it is asked again.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from shared.errors import ExtraNotInstalledError
from simulations.partitions.deal import deal
from simulations.partitions.errors import ImpossiblePartitionError
from simulations.partitions.settings import Dealt, DirichletByClass, Flower, Iid, Natural, Shards

LABELS = np.arange(6000) % 10
GROUPS = np.arange(6000) // 300
RECORDED: dict[str, dict[str, float]] = json.loads(Path(__file__).with_name("flwr_datasets.json").read_text())
_DIRICHLET = {"min_partition_size": 1, "self_balancing": False}
CASES: dict[str, tuple[Dealt, Flower]] = {
    "iid": (Iid(), Flower(partitioner="IidPartitioner")),
    "dirichlet 0.5": (
        DirichletByClass(alpha=0.5),
        Flower(partitioner="DirichletPartitioner", options={"alpha": 0.5, **_DIRICHLET}),
    ),
    "dirichlet 5": (
        DirichletByClass(alpha=5),
        Flower(partitioner="DirichletPartitioner", options={"alpha": 5.0, **_DIRICHLET}),
    ),
    "shards": (Shards(shards=2), Flower(partitioner="ShardPartitioner", options={"num_shards_per_partition": 2})),
    "natural": (Natural(), Flower(partitioner="NaturalIdPartitioner")),
}


def figures(settings: Dealt, *, seeds: int = 12) -> dict[str, float]:
    tables = []
    for seed in range(seeds):
        clients = None if "atural" in str(settings) else 20
        shares = deal(settings, LABELS, clients=clients, seed=seed, groups=GROUPS)
        tables += [np.bincount(LABELS[shares.of(client)], minlength=10) for client in range(shares.clients)]
    counts = np.stack(tables)
    mixtures = counts / counts.sum(axis=1, keepdims=True)
    logs = np.log(np.where(mixtures > 0, mixtures, 1))
    return {
        "sizes_std": float(counts.sum(axis=1).std()),
        "classes": float((counts > 0).sum(axis=1).mean()),
        "entropy": float(-(mixtures * logs).sum(axis=1).mean()),
    }


def check_alike(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert abs(ours["sizes_std"] - theirs["sizes_std"]) < 0.12 * theirs["sizes_std"] + 1
    assert abs(ours["classes"] - theirs["classes"]) < 0.15
    assert abs(ours["entropy"] - theirs["entropy"]) < 0.05


@pytest.mark.parametrize("case", CASES)
def test_our_partitions_are_those_of_flwr_datasets(case: str) -> None:
    check_alike(figures(CASES[case][0]), RECORDED[case])


def test_another_concentration_would_be_noticed() -> None:
    with pytest.raises(AssertionError):
        check_alike(figures(DirichletByClass(alpha=0.8)), RECORDED["dirichlet 0.5"])


@pytest.mark.parametrize("case", CASES)
def test_flwr_datasets_partitioners_deal_here_where_installed(case: str) -> None:
    pytest.importorskip("flwr_datasets")
    check_alike(figures(CASES[case][1], seeds=4), RECORDED[case])


def test_without_flwr_datasets_the_error_names_the_extra() -> None:
    try:
        import flwr_datasets  # noqa: F401  # its absence is the case
    except ImportError:
        with pytest.raises(ExtraNotInstalledError, match="huggingface"):
            deal(CASES["iid"][1], LABELS, clients=3, seed=1)
    else:
        with pytest.raises(ImpossiblePartitionError, match="Expected one of"):
            deal(Flower(partitioner="Nothing"), LABELS, clients=3, seed=1)
