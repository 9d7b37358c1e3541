from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_agent.training.local import train_locally
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.tasks.check import check_task
from shared.tasks.digits.task import DigitsTask
from shared.tasks.lora import Adapted, AdaptedTask, add_adapters, factor_names, merged
from shared.tasks.onnx_export import export_onnx
from shared.tasks.physio import TASK as PHYSIO
from shared.tasks.torch_model import state_tensors

RANK = 4
SPEC = PrivacySpec(
    noise_multiplier=1, max_grad_norm=1, sampling_rate=0.5, steps_per_round=2, epsilon=8, delta=1e-5, rounds=1
)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Sequential(
            nn.Conv2d(16, 20, 3, dilation=2, bias=False), nn.Conv2d(20, 20, 1, groups=5), nn.AdaptiveAvgPool2d(1)
        ),
        nn.Flatten(),
        nn.Linear(20, 50),
        nn.Linear(50, 3),
    )


def trained(model: nn.Module) -> nn.Module:
    """The model with factors that add something."""
    for layer in model.modules():
        if isinstance(layer, Adapted):
            nn.init.normal_(layer.up.weight, std=0.3)
    return model


def test_an_adapted_model_starts_as_the_one_it_adapts() -> None:
    inputs = torch.randn(5, 3, 12, 12)
    assert torch.equal(add_adapters(network(), rank=RANK)(inputs), network()(inputs))


def test_only_factors_are_trained_and_only_where_they_are_fewer_numbers() -> None:
    model = add_adapters(network(), rank=RANK)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    # Neither the grouped convolution nor the head of three classes.
    assert {name.rsplit(".", 2)[0] for name in names} == {"0", "2.0", "4"}
    assert set(names) == set(factor_names(model))


def test_merging_adds_the_factors_into_plain_layers() -> None:
    model, inputs = trained(add_adapters(network(), rank=RANK, alpha=8)), torch.randn(5, 3, 12, 12)
    plain = merged(model)
    assert torch.allclose(plain(inputs), model(inputs), atol=1e-5)
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in network().named_parameters()]
    assert not torch.allclose(plain(inputs), network()(inputs), atol=1e-2)
    assert merged(plain) is plain


def test_an_adapted_task_is_sound() -> None:
    assert [finding for finding in check_task(AdaptedTask(PHYSIO, rank=2)) if not finding.sound] == []


@pytest.mark.parametrize("privacy", [None, SPEC], ids=["plain", "private"])
def test_a_device_sends_the_factors_alone(privacy: PrivacySpec | None) -> None:
    task = AdaptedTask(DigitsTask(), rank=RANK)
    model = state_tensors(task.model(seed=1))
    update = train_locally(
        task,
        model,
        task.device_slices()["block-0"],
        settings=task.local_training,
        privacy=privacy,
        randomness=SecureRandomness(bytes(32)),
    )
    assert set(update.tensors) == {"0.down.weight", "0.up.weight", "2.down.weight", "2.up.weight"}
    assert sum(value.size for value in update.tensors.values()) < sum(value.size for value in model.values()) / 3
    assert any(np.any(update.tensors[name] != model[name]) for name in update.tensors)


def test_what_is_exported_is_merged(tmp_path: Path) -> None:
    import onnx

    model = trained(AdaptedTask(DigitsTask(), rank=RANK).model(seed=1)).eval()
    export_onnx(model, DigitsTask.schema, tmp_path / "adapted.onnx")
    export_onnx(DigitsTask().model(seed=1).eval(), DigitsTask.schema, tmp_path / "plain.onnx")
    adapted, plain = (onnx.load(str(tmp_path / f"{name}.onnx")) for name in ("adapted", "plain"))
    assert [node.op_type for node in adapted.graph.node] == [node.op_type for node in plain.graph.node]
