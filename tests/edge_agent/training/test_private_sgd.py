"""DP-SGD does what its guarantee says: one clipped gradient a unit, noise of the right size, from the right source."""

import numpy as np
import pytest
import torch

from edge_agent.training import private_sgd
from edge_agent.training.clipping.chooser import choose_engine
from edge_agent.training.clipping.opacus_engine import OpacusEngine
from edge_agent.training.clipping.sums import Sums
from edge_agent.training.private_sgd import UnitOptimizer, train_privately
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.tasks.registry import load_task
from shared.tasks.task import Examples

TASK = load_task("digits")
NEARLY_NOISELESS = 1e-9


def _examples(units: list[int], *, seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    count = len(units)
    return Examples(
        inputs=generator.random((count, 64)).astype(np.float32),
        labels=generator.integers(0, 10, count).astype(np.int64),
        units=np.array(units, np.int64),
    )


def _spec(*, noise: float = NEARLY_NOISELESS, clip: float = 1.0, rate: float = 1.0, steps: int = 1) -> PrivacySpec:
    return PrivacySpec(
        epsilon=8, delta=1e-5, noise_multiplier=noise, max_grad_norm=clip, sampling_rate=rate, steps_per_round=steps,
        rounds=1,
    )  # fmt: skip


def _flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _gradient(model: torch.nn.Module, examples: Examples, chosen: np.ndarray) -> torch.Tensor:
    """By hand: plain autograd of the mean loss over the chosen examples."""
    model.zero_grad()
    loss = TASK.loss(model(torch.from_numpy(examples.inputs[chosen])), torch.from_numpy(examples.labels[chosen]))
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(model.parameters()))])


def _step(examples: Examples, spec: PrivacySpec, *, key: int = 1) -> torch.Tensor:
    """What one call of ours changes in a fresh model, with learning rate 1."""
    model = TASK.model(seed=0)
    before = _flat(model)
    train_privately(TASK, model, examples, spec=spec, learning_rate=1.0, randomness=SecureRandomness(bytes([key]) * 32))
    return _flat(model) - before


def _clipped(gradients: list[torch.Tensor], clip: float) -> torch.Tensor:
    return torch.stack([gradient * min(1.0, clip / float(gradient.norm())) for gradient in gradients]).sum(dim=0)


def test_the_step_is_the_sum_of_unit_gradients_each_clipped_once() -> None:
    examples, clip = _examples([7, 7, 7, 3, 3, 9]), 0.5
    model = TASK.model(seed=0)
    by_unit = [_gradient(model, examples, np.flatnonzero(examples.units == unit)) for unit in (3, 7, 9)]
    by_example = [_gradient(model, examples, np.array([index])) for index in range(6)]
    assert all(float(gradient.norm()) > clip for gradient in by_unit)
    step = _step(examples, _spec(clip=clip))
    torch.testing.assert_close(step, -_clipped(by_unit, clip) / 3, rtol=1e-4, atol=1e-6)
    # Negative control: clipping examples instead of units is another, weaker mechanism, and this test tells them apart.
    assert not torch.allclose(step, -_clipped(by_example, clip) / 3, rtol=1e-2)


@pytest.mark.parametrize("unit", [0, 1, 2])
def test_one_unit_more_moves_the_sum_by_no_more_than_the_bound(unit: int) -> None:
    examples, clip = _examples([0, 0, 0, 0, 1, 2, 2], seed=5), 0.3
    without = examples.units != unit
    fewer = Examples(examples.inputs[without], examples.labels[without], examples.units[without])
    difference = _step(examples, _spec(clip=clip)) * 3 - _step(fewer, _spec(clip=clip)) * 2
    assert float(difference.norm()) <= clip * (1 + 1e-4)


def _has_scale(noise: torch.Tensor, scale: float) -> bool:
    """Whether the noise has this standard deviation, to 4 standard errors."""
    return abs(float(noise.double().std()) / scale - 1) < 4 / float(np.sqrt(2 * noise.numel()))


def test_noise_has_the_promised_scale_and_the_check_would_see_a_wrong_one() -> None:
    parameter = torch.nn.Parameter(torch.zeros(200, 200))
    sums = Sums([parameter])
    optimizer = UnitOptimizer(
        torch.optim.SGD([sums.weights()], lr=1.0),
        sums,
        spec=_spec(noise=1.7, clip=0.4),
        units=3,
        randomness=SecureRandomness(bytes(32)),
    )
    optimizer.step()
    noise = sums.vector * 3
    assert abs(float(noise.mean())) < 4 * 1.7 * 0.4 / 200
    assert _has_scale(noise, 1.7 * 0.4)
    assert not _has_scale(noise, 1.7)
    assert not _has_scale(noise, 1.7 * 0.4 * 1.05)
    assert torch.equal(parameter.flatten(), -sums.vector)


def test_an_empty_poisson_sample_is_a_step_of_noise_alone() -> None:
    spec = _spec(noise=2.0, clip=0.5, rate=1e-9, steps=1)
    step = _step(_examples([1, 2]), spec) * (2 * 1e-9)
    assert _has_scale(step, 2.0 * 0.5)


def test_every_step_draws_new_noise_and_only_a_fixed_key_repeats_it() -> None:
    examples, spec = _examples([1, 2]), _spec(noise=1.0)
    torch.testing.assert_close(_step(examples, spec, key=1), _step(examples, spec, key=1))
    assert not torch.allclose(_step(examples, spec, key=1), _step(examples, spec, key=2))


def test_frozen_parameters_neither_move_nor_get_noise() -> None:
    model = TASK.model(seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("2."))
    train_privately(
        TASK, model, _examples([1, 2]), spec=_spec(noise=1.0), learning_rate=1.0, randomness=SecureRandomness(bytes(32))
    )
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"2.weight", "2.bias"}


def test_sampled_units_alone_contribute() -> None:
    examples = _examples([4, 5, 4, 6, 5, 7])
    uniform = SecureRandomness(bytes([1]) * 32).uniform(4)
    sampled = np.array([4, 5, 6, 7])[uniform < 0.5]
    assert 0 < len(sampled) < 4
    model = TASK.model(seed=0)
    by_unit = [_gradient(model, examples, np.flatnonzero(examples.units == unit)) for unit in sampled]
    step = _step(examples, _spec(rate=0.5, clip=0.2))
    torch.testing.assert_close(step, -_clipped(by_unit, 0.2) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["digits", "physio"])
def test_training_by_either_engine_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, trained = load_task(name), {}
    generator = np.random.default_rng(0)
    units = np.sort(generator.integers(0, 6, 30)).astype(np.int64)
    inputs = generator.normal(size=(30, *task.schema.input_shape)).astype(np.float32)
    examples = Examples(inputs, generator.integers(0, len(task.schema.classes), 30).astype(np.int64), units)

    def opacus(model, loss, *, max_grad_norm, inputs, labels):  # type: ignore[no-untyped-def]  # as choose_engine
        return OpacusEngine(model, loss, max_grad_norm=max_grad_norm)

    for choose in (choose_engine, opacus):
        monkeypatch.setattr(private_sgd, "choose_engine", choose)
        torch.manual_seed(0)
        model = task.model(seed=0)
        engine = train_privately(
            task, model, examples, spec=_spec(noise=0.5, rate=0.5, steps=4), learning_rate=0.1,
            randomness=SecureRandomness(bytes(32)),
        )  # fmt: skip
        trained[engine.name] = _flat(model)
    assert set(trained) == {"book-keeping", "opacus"}
    # Sums that differ in their last bits may round to neighbours of the noise's grid, in a number or two.
    grid, step = 0.5 * 2**-7, 0.1 / (6 * 0.5)
    difference = trained["book-keeping"] - trained["opacus"]
    assert float(difference.abs().max()) <= 2 * grid * step
    assert float((difference.abs() > grid * step / 2).float().mean()) < 1e-3
