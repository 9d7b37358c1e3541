"""What is clipped in a simulation is what a device would clip: each way against the devices' own engine."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import vector_to_parameters

from edge_agent.training.clipping.chooser import choose_engine
from edge_agent.training.clipping.sums import Sums
from edge_agent.training.clipping.units import Units
from simulations.engines.errors import UnsupportedModelError
from simulations.engines.port import Assignment, ExamplePrivacy, LocalTraining, Sgd
from simulations.engines.vector.choice import Choice, Way
from simulations.engines.vector.engine import VectorEngine, VectorSettings
from simulations.engines.vector.layers.kernel import Convolve, Form, Weights
from simulations.problem import Problem
from tests.simulations.engines.problems import (
    CLASSES,
    Residual,
    Rows,
    convolutional,
    dense,
    frozen_statistics,
    partly_frozen,
    problem,
    sensor,
    start_of,
)

WAYS = {
    "layers": Choice(Way.LAYERS, 1, Form(Weights.OWN, Convolve.UNFOLDED)),
    "stacked": Choice(Way.STACKED, 1),
    "in place": Choice(Way.IN_PLACE, 1),
}
BATCH = torch.arange(16)
BOUND = 0.5


def _simulated(subject: Problem, way: Choice) -> torch.Tensor:
    """The sum that a client's step is made of: with learning rate 1, no noise, and divided by 1."""
    local = LocalTraining(Sgd(1.0), ExamplePrivacy(BOUND, 0.0, expected_batch=1.0))
    engine = VectorEngine(subject, local, VectorSettings(1, choice=way, cache_folder=None))
    one = torch.ones(1, dtype=torch.int64)
    assignment = Assignment(one, BATCH.view(1, 1, -1), one, start_of(subject), seeds=one)
    return -engine.train(assignment, Rows())["deltas"][0]


def _on_a_device(subject: Problem, *, bound: float) -> torch.Tensor:
    model = subject.model(0).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    vector_to_parameters(start_of(subject), trained)
    inputs, labels = subject.train.inputs[BATCH], subject.train.labels[BATCH]
    engine = choose_engine(model, cross_entropy, max_grad_norm=bound, inputs=inputs, labels=labels)
    sums = Sums(trained)
    engine.clipped_sums(inputs, labels, Units.single(len(BATCH)), sums)
    return sums.vector


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("build", [dense, convolutional, sensor, Residual, partly_frozen, frozen_statistics])
def test_a_clients_step_is_the_sum_that_a_device_would_clip(build: Callable[[], nn.Module], way: str) -> None:
    subject = problem(build)
    try:
        simulated = _simulated(subject, WAYS[way])
    except UnsupportedModelError:
        pytest.skip("refused, with a reason")
    device = _on_a_device(subject, bound=BOUND)
    assert float((simulated - device).norm() / device.norm()) < 2e-6
    # Negative control: another bound would be seen.
    other = _on_a_device(subject, bound=BOUND * 1.0001)
    assert float((simulated - other).norm() / other.norm()) > 2e-5


class Tied(nn.Module):
    """Uses a weight twice, once past its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(12, 12, bias=False), nn.Linear(12, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.inner(inputs.flatten(1)) @ self.inner.weight)
        return outputs


def test_a_model_that_devices_would_refuse_is_refused_with_their_reason() -> None:
    data = problem(dense).train
    subject = Problem("tied", lambda seed: Tied(), problem(dense).losses, data, data, CLASSES)
    with pytest.raises(UnsupportedModelError, match=r"'inner\.weight' to be used by its layer's"):
        _simulated(subject, WAYS["in place"])
