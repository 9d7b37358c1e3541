"""Rounds whose models never leave the GPU end where rounds on the CPU do."""

import numpy as np
import pytest
import torch

from simulations.experiments.run import run
from tests.simulations.rounds.test_loop import experiment

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
STRATEGIES = ["fedavg", "fedadam", "scaffold", "fednova", "feddyn", "qfedavg", "ditto", "median", "multi_krum"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy(strategy: str) -> None:
    there, here = (
        run(experiment(strategy=strategy, engine=engine, cohort={"clients": 8})) for engine in ("cuda", "reference")
    )
    for name, tensor in here.models[0].items():
        expected = torch.from_numpy(tensor)
        found = torch.from_numpy(there.models[0][name])
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4 * float(expected.abs().max()))


def test_compression_and_private_users() -> None:
    compressed = run(experiment(engine="cuda", compression="top-k=0.1+int8"))
    assert compressed.accuracy > 0
    private = run(experiment(engine="cuda", privacy={"user": {"epsilon": 50.0, "delta": 1e-3, "clip_norm": 1.0}}))
    assert all(np.isfinite(tensor).all() for tensor in private.models[0].values())
