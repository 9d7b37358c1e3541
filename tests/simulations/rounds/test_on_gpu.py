"""Rounds whose models never leave the GPU end where rounds on the CPU do."""

import numpy as np
import pytest
import torch

from simulations.experiments.run import run
from tests.simulations.rounds.test_loop import experiment

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
OWN_HEAD = {"local": "2"}
STRATEGIES: dict[str, object] = {
    **{name: name for name in ("fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi")},
    **{name: name for name in ("scaffold", "fednova", "feddyn", "qfedavg", "ditto")},
    **{name: name for name in ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "norm_clipping")},
    "bulyan": {"name": "bulyan", "liars": 1},
    "fedper": {"name": "fedper"} | OWN_HEAD,
    "fedrep": {"name": "fedrep"} | OWN_HEAD,
    "fedbuff": {"name": "fedbuff", "buffer": 4},
}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_every_strategy(strategy: object) -> None:
    there, here = (
        run(experiment(strategy=strategy, engine=engine, cohort={"clients": 8})) for engine in ("cuda", "reference")
    )
    for name, tensor in here.models[0].items():
        expected = torch.from_numpy(tensor)
        found = torch.from_numpy(there.models[0][name])
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4 * float(expected.abs().max()))


def test_compression_and_private_training() -> None:
    compressed = run(experiment(engine="cuda", compression="top-k=0.1+int8"))
    assert compressed.accuracy > 0
    for unit in ({"user": {"epsilon": 50.0, "delta": 1e-3, "clip_norm": 1.0}}, {"example": {"noise_multiplier": 0.5}}):
        private = run(experiment(engine="cuda", privacy=unit))
        assert all(np.isfinite(tensor).all() for tensor in private.models[0].values())
