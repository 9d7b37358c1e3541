"""A device's first training does not wait for libraries it does not need; what replaces them computes the same."""

import subprocess
import sys

import torch

from edge_agent.training.terms import LocalSgd, Terms

_FIRST_TRAINING = """
import sys
import numpy as np
from edge_agent.training.local import train_locally
from shared.accountant import epsilon_of
from shared.privacy import MechanismEvent, PrivacySpec
from shared.randomness import SecureRandomness
from shared.tasks.registry import load_task
from shared.tasks.task import DeviceData, Examples
from shared.tasks.torch_model import state_tensors

task, rng = load_task("digits"), np.random.default_rng(0)
data = Examples(rng.random((20, 64)).astype(np.float32), rng.integers(0, 10, 20), np.arange(20))
spec = PrivacySpec(
    epsilon=8, delta=1e-5, noise_multiplier=1, max_grad_norm=1, sampling_rate=0.5, steps_per_round=3, rounds=1
)
for privacy in (spec, None):
    train_locally(
        task, state_tensors(task.model(seed=0)), DeviceData("d", data, data), settings=task.local_training,
        privacy=privacy, randomness=SecureRandomness.from_system(),
    )
event = MechanismEvent(dataset_id="d", unit="example", noise_multiplier=1, sampling_rate=0.5, steps=3)
epsilon_of([event], 1e-5)
print(sorted({"opacus", "torch._dynamo", "sympy", "scipy", "sklearn"} & set(sys.modules)))
"""


def test_training_loads_neither_opacus_nor_torchs_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", _FIRST_TRAINING], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_plain_sgd_steps_as_torchs_own() -> None:
    ours = torch.nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)))
    theirs, still = torch.nn.Parameter(ours.detach().clone()), torch.nn.Parameter(torch.ones(3))
    terms = Terms(torch.zeros(50), proximal=0.5)
    mine = LocalSgd([ours], learning_rate=0.1, terms=terms)
    torchs = torch.optim.SGD([theirs], lr=0.1)
    for step in range(5):
        gradient = torch.randn(50, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient.clone(), gradient + terms.of(theirs.detach())
        mine.step()
        torchs.step()
    assert torch.equal(ours, theirs)
    mine.zero_grad()
    assert ours.grad is None
    LocalSgd([still], learning_rate=0.1).step()
    assert torch.equal(still, torch.ones(3))
