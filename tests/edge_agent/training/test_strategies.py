"""What a device adds to its training for a strategy, what it keeps, and what it sends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_agent.training.local import Part, Update, train_locally
from shared.beside import put_beside, take_beside
from shared.compression.updates import restore_update
from shared.layout import Layout
from shared.messages.events import WorkStatus
from shared.messages.work import AFTER_WORK, STRATEGY
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.strategies import StrategySettingError, strategy
from shared.tasks.torch_model import load_state, state_tensors
from shared.tensors import Array, Tensors
from tests.edge_agent.training.device import MODEL, NAMES, TASK, Device

LAYOUT = Layout.of({name: MODEL[name] for name in NAMES})
RATE = TASK.local_training.chosen(private=False).learning_rate
PRIVACY = PrivacySpec(
    epsilon=8, delta=1e-5, noise_multiplier=2.0, max_grad_norm=1.0, sampling_rate=0.5, steps_per_round=2, rounds=9
)
CONTROL: Tensors = {"control": np.full(LAYOUT.size, 0.001, np.float32)}


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.close()


def trained(name: str, *, kept: Tensors | None = None, received: Tensors | None = None, **settings: Any) -> Update:
    """What one device makes of it; the same batches each time. `Any`: settings of the strategy."""
    private = bool(settings.pop("private", False))
    return train_locally(
        TASK,
        MODEL,
        next(iter(TASK.device_slices().values())),
        settings=TASK.local_training.chosen(private=private),
        privacy=PRIVACY if private else None,
        randomness=SecureRandomness(b"k" * 32),
        part=Part(strategy(name, settings), received=received or {}, kept=kept or {}),
    )


def floats(values: Array) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def delta(update: Update) -> NDArray[np.float32]:
    return LAYOUT.flatten(update.tensors) - LAYOUT.flatten(MODEL)


def test_without_a_pull_fedprox_is_fedavg_and_with_one_it_stays_nearer() -> None:
    plain, none, strong = (
        delta(each) for each in (trained("fedavg"), trained("fedprox", proximal=0), trained("fedprox", proximal=1.5))
    )
    np.testing.assert_array_equal(none, plain)
    assert 0 < np.linalg.norm(np.asarray(strong, np.float64)) < 0.7 * np.linalg.norm(np.asarray(plain, np.float64))


@pytest.mark.parametrize("private", [False, True])
def test_scaffolds_device_sends_by_how_much_its_control_changed(private: bool) -> None:
    found = trained("scaffold", received=CONTROL, private=private)
    rate = TASK.local_training.chosen(private=private).learning_rate
    expected: NDArray[np.float32] = -np.float32(0.001) - delta(found) / np.float32(found.metrics["steps"] * rate)
    np.testing.assert_allclose(np.asarray(found.beside["control"], np.float32), expected, atol=1e-4)
    np.testing.assert_array_equal(found.kept["control"], found.beside["control"])  # it began with none
    again = trained("scaffold", received=CONTROL, kept=found.kept, private=private)
    assert not np.array_equal(delta(again), delta(found))


def test_what_is_added_with_privacy_is_added_to_the_noised_gradient() -> None:
    """With the same noise, a constant term moves the weights by exactly steps * rate * term: nothing clipped it."""
    without, with_it = trained("fedavg", private=True), trained("scaffold", received=CONTROL, private=True)
    rate = TASK.local_training.chosen(private=True).learning_rate
    # The second step's gradient is another one by then, but noise and clipping bound how much.
    moved = np.asarray(delta(without) - delta(with_it), np.float64)
    assert np.median(moved) == pytest.approx(PRIVACY.steps_per_round * rate * 0.001, rel=0.02)


def test_a_pull_that_overshoots_is_refused() -> None:
    with pytest.raises(StrategySettingError, match="got 20, which overshoots"):
        trained("fedprox", proximal=20)


def test_qfedavgs_device_measures_the_model_as_it_came() -> None:
    assert "start-loss" not in trained("fedavg").metrics
    found = trained("qfedavg")
    assert found.metrics["start-loss"] == pytest.approx(np.log(10), rel=0.2)
    np.testing.assert_array_equal(delta(found), delta(trained("fedavg")))
    # With privacy it says nothing of the training data: another figure.
    assert trained("qfedavg", private=True).metrics["start-loss"] != found.metrics["start-loss"]


def test_a_local_layer_is_trained_kept_and_never_sent() -> None:
    head = tuple(name for name in NAMES if name.startswith(NAMES[-1].split(".")[0]))
    found = trained("fedper", local=(NAMES[-1].split(".")[0],))
    for name in NAMES:
        assert np.array_equal(found.tensors[name], MODEL[name]) == (name in head)
    assert len(found.kept["personal"]) == sum(MODEL[name].size for name in head)
    assert not found.beside


@pytest.mark.parametrize("private", [False, True])
def test_fedreps_steps_move_first_the_head_then_the_body(private: bool) -> None:
    head = NAMES[-1].split(".")[0]
    found = trained("fedrep", local=(head,), head_share=0.5, private=private)
    together = trained("fedper", local=(head,), private=private)
    assert found.kept["personal"].shape == together.kept["personal"].shape
    assert not np.array_equal(found.kept["personal"], together.kept["personal"])
    # It is the head that began: what the body then learned is another thing than beside a head that moves.
    assert np.linalg.norm(np.asarray(delta(found), np.float64)) > 0
    assert not np.array_equal(delta(found), delta(together))
    assert found.metrics["personal-accuracy"] == found.metrics["held-out-accuracy"]


def test_fedrep_is_the_papers_two_loops() -> None:
    """Algorithm 1 of Collins et al. 2021, with torch's own optimizers, on the batches that the device draws."""
    local = TASK.local_training.chosen(private=False)
    found = trained("fedrep", local=("2",), head_share=0.6)
    model, randomness = TASK.model(seed=0), SecureRandomness(b"k" * 32)
    load_state(model, MODEL)
    randomness.uniform(1)
    data = next(iter(TASK.device_slices().values())).train
    units = np.unique(data.units)
    parts: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        parts[name.startswith("2")].append(parameter)
    for step in range(local.steps):
        optimizer = torch.optim.SGD(parts[step < round(0.6 * local.steps)], lr=local.learning_rate)
        chosen = np.isin(data.units, units[randomness.uniform(len(units)) < local.sampling_rate])
        model.zero_grad()
        loss = TASK.loss(model(torch.from_numpy(data.inputs[chosen])), torch.from_numpy(data.labels[chosen]))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        optimizer.step()
    body = {name: value for name, value in state_tensors(model).items() if not name.startswith("2")}
    for name, value in body.items():
        np.testing.assert_allclose(floats(found.tensors[name]), floats(value), atol=1e-6)
    own = torch.nn.utils.parameters_to_vector(parts[True]).detach().numpy()
    np.testing.assert_allclose(floats(found.kept["personal"]), own, atol=1e-6)


def test_ditto_trains_a_second_model_that_stays() -> None:
    found = trained("ditto", strength=0.1)
    assert found.metrics["personal-accuracy"] >= 0
    assert found.kept["personal"].shape == (LAYOUT.size,)
    np.testing.assert_array_equal(delta(found), delta(trained("fedavg")))
    # Its training has no noise: with privacy its figures stay as well.
    assert not [name for name in trained("ditto", strength=0.1, private=True).metrics if "personal" in name]


def scaffold(work_id: str, device: Device, *, compression: str = "", **config: Any) -> NDArray[np.float32]:
    """By how much the control changed, as it is received. `Any`: configuration of the work."""
    sent, config = put_beside(MODEL, CONTROL), {STRATEGY: strategy("scaffold").model_dump_json(), **config}
    update = device.does(work_id, model=sent, config=config, compression=compression)
    return np.asarray(take_beside(restore_update(update, MODEL, NAMES))[1]["control"], np.float32)


def kept_control(device: Device, work_id: str) -> NDArray[np.float32]:
    return np.asarray(device.kept_after(work_id)["strategy/control"], np.float32)


def test_a_retry_sends_the_same_bytes_and_keeps_the_same(device: Device) -> None:
    first, kept = scaffold("w1", device), kept_control(device, "w1")
    np.testing.assert_array_equal(scaffold("w1", device), first)
    np.testing.assert_array_equal(kept_control(device, "w1"), kept)


@pytest.mark.parametrize("compression", ["", "int8", "top-k=0.1+int4"])
def test_what_is_kept_is_the_sum_of_what_was_received_and_counted(device: Device, compression: str) -> None:
    """Whatever was lost on the way, and however coarsely it was sent: so the server knows the mean of all controls."""
    first = scaffold("w1", device, compression=compression)
    scaffold("lost", device, compression=compression, **{AFTER_WORK: "w1"})
    second = scaffold("w2", device, compression=compression, **{AFTER_WORK: "w1"})
    np.testing.assert_allclose(kept_control(device, "w2"), first + second, atol=1e-5)


def test_a_device_that_lost_what_it_kept_refuses(device: Device) -> None:
    config = {STRATEGY: strategy("scaffold").model_dump_json(), AFTER_WORK: "w0"}
    result = device.perform("w1", model=put_beside(MODEL, CONTROL), config=config)
    assert result.status is WorkStatus.REFUSED
    assert "no longer there" in result.reason


def test_a_strategy_that_the_agent_does_not_know_is_refused(device: Device) -> None:
    result = device.perform("w1", config={STRATEGY: '{"name": "fedfuture"}'})
    assert result.status is WorkStatus.REFUSED
    assert "Expected a strategy that this agent knows" in result.reason


def test_a_control_of_another_model_is_refused(device: Device) -> None:
    config = {STRATEGY: strategy("scaffold").model_dump_json()}
    result = device.perform("w1", model=put_beside(MODEL, {"control": np.ones(7, np.float32)}), config=config)
    assert result.status is not WorkStatus.DONE
