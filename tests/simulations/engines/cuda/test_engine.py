"""The stacked engine gives the reference's updates: on a CPU here, on a GPU where there is one."""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from edge_agent.training.algorithms.alternation import Alternation
from simulations.engines.cuda.engine import CudaEngine, CudaOptions
from simulations.engines.errors import NoGpuError, UnsupportedModelError
from simulations.engines.port import Adam, ExamplePrivacy, LocalTraining, Sgd
from tests.simulations.engines.cuda.cohorts import (
    Rows,
    assert_same,
    dense_net,
    dropout_net,
    image_net,
    problem,
    reference,
    residual_net,
    signal_net,
    start,
    unequal_round,
)

ON_CPU = CudaOptions(device="cpu")
ON_GPU = pytest.param(
    CudaOptions(), marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
)
MODELS = [dense_net, image_net, signal_net, residual_net]
HOW = [
    LocalTraining(Sgd(0.1)),
    LocalTraining(Sgd(0.1, momentum=0.9, weight_decay=0.01), wants_start_loss=True),
    LocalTraining(Adam(0.01, weight_decay=0.01), proximal=0.3),
    LocalTraining(Sgd(0.1), proximal=0.5),
]


@pytest.mark.parametrize("options", [ON_CPU, ON_GPU])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("local", HOW, ids=["sgd", "momentum", "adam", "proximal"])
def test_clients_of_unequal_sizes_get_the_references_updates(
    model: Callable[[int], nn.Module], local: LocalTraining, options: CudaOptions
) -> None:
    small = problem(model)
    plan = unequal_round(small)
    assert_same(CudaEngine(small, local, options), reference(small, local, plan), plan)


def test_blocks_of_clients_together_are_the_cohort() -> None:
    small, local = problem(), LocalTraining(Sgd(0.1))
    plan = unequal_round(small)
    engine = CudaEngine(small, local, CudaOptions(device="cpu", clients_at_once=2))
    assert_same(engine, reference(small, local, plan), plan)


def test_a_second_round_remembers_nothing_of_the_first() -> None:
    small, local = problem(), LocalTraining(Adam(0.01))
    engine = CudaEngine(small, local, ON_CPU)
    engine.train(unequal_round(small, seed=1), Rows())
    plan = replace(unequal_round(small, seed=2), learning_rate_factor=0.5)
    assert_same(engine, reference(small, local, plan), plan)


@pytest.mark.parametrize("options", [ON_CPU, ON_GPU])
@pytest.mark.parametrize("local", HOW, ids=["sgd", "momentum", "adam", "proximal"])
def test_head_and_body_take_turns_each_client_its_own(local: LocalTraining, options: CudaOptions) -> None:
    small = problem(image_net)
    head = tuple(name for name, _ in small.model(0).named_parameters())[-2:]
    turning = replace(local, alternation=Alternation(head, 0.6))
    plan = unequal_round(small)
    engine = CudaEngine(small, turning, options)
    engine.train(unequal_round(small, seed=1), Rows())
    assert_same(engine, reference(small, turning, plan), plan)
    together = reference(small, local, plan)["deltas"]
    assert not torch.allclose(reference(small, turning, plan)["deltas"], together, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        CudaOptions(device="cpu", compiler="aot_eager"),
        pytest.param(CudaOptions(compiler="inductor"), marks=ON_GPU.marks),
    ],
)
@pytest.mark.parametrize("local", [HOW[1], HOW[2], LocalTraining(Sgd(0.1), ExamplePrivacy(0.7, 0.0, 4.0))])
@pytest.mark.filterwarnings("ignore")  # the compiler's own, of what it imports and of tf32, which is off on purpose
def test_what_is_compiled_computes_the_same(local: LocalTraining, options: CudaOptions) -> None:
    small = problem(residual_net)
    plan = unequal_round(small)
    engine = CudaEngine(small, local, options)
    assert_same(engine, reference(small, local, plan), plan)
    assert not [note for note in engine.notes if "not compiled" in note]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_earlier_engine_that_is_thrown_away_spoils_no_capture() -> None:
    small, local = problem(), LocalTraining(Sgd(0.1))
    plan = unequal_round(small)
    for _ in range(3):
        engine = CudaEngine(small, local)
        engine.train(plan, Rows())
        circle: list[object] = [engine]
        circle.append(circle)  # only the collector can throw it away
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert_same(CudaEngine(small, local), reference(small, local, plan), plan)
    finally:
        gc.set_threshold(*before)


def test_what_cannot_be_compiled_is_computed_all_the_same_and_says_so() -> None:
    small, local = problem(residual_net), LocalTraining(Sgd(0.1))

    def broken(*graph: object) -> Any:  # never comes to what torch wants
        raise RuntimeError("no")

    plan = unequal_round(small)
    torch._dynamo.register_backend(name="broken", compiler_fn=broken)
    engine = CudaEngine(small, local, CudaOptions(device="cpu", compiler="broken"))
    assert_same(engine, reference(small, local, plan), plan)
    assert [note for note in engine.notes if "not compiled" in note]


@pytest.mark.parametrize("own", [False, True])
def test_starts_and_corrections_may_be_each_clients_own(own: bool) -> None:
    small, local = problem(), LocalTraining(Sgd(0.1), proximal=0.1)
    plan = unequal_round(small)
    shape = (len(plan), plan.start.numel()) if own else (plan.start.numel(),)
    plan = replace(plan, start=plan.start + 0.1 * torch.randn(shape), linear=0.1 * torch.randn(shape))
    assert_same(CudaEngine(small, local, ON_CPU), reference(small, local, plan), plan)


@pytest.mark.parametrize("options", [ON_CPU, ON_GPU])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", [Sgd(0.1), Sgd(0.1, momentum=0.9)], ids=["plain", "momentum"])
def test_examples_are_clipped_one_by_one(
    model: Callable[[int], nn.Module], optimizer: Sgd, options: CudaOptions
) -> None:
    small = problem(model)
    privacy = ExamplePrivacy(max_grad_norm=0.7, noise_multiplier=0.0, expected_batch=4.0)
    local = LocalTraining(optimizer, privacy=privacy)
    plan = unequal_round(small, empty_steps=True)
    assert_same(CudaEngine(small, local, options), reference(small, local, plan), plan)


def test_noise_and_dropout_on_a_cpu_are_the_references_own() -> None:
    privacy = ExamplePrivacy(max_grad_norm=0.7, noise_multiplier=1.3, expected_batch=4.0)
    small = problem()
    plan = unequal_round(small, empty_steps=True)
    local = LocalTraining(Sgd(0.1), privacy=privacy)
    assert_same(CudaEngine(small, local, ON_CPU), reference(small, local, plan), plan)
    small = problem(dropout_net)
    plan = unequal_round(small)
    full = replace(plan, batches=plan.batches[:, :, :1], start=start(small))
    local = LocalTraining(Sgd(0.1))
    assert_same(CudaEngine(small, local, ON_CPU), reference(small, local, full), full)


def test_a_client_that_diverges_spoils_no_other() -> None:
    small, local = problem(image_net), LocalTraining(Sgd(0.1))
    plan = unequal_round(small)
    small.train.inputs[plan.batches[3, 0, 0]] = float("nan")
    plan.batches[[0, 1, 2, 4]] = plan.batches[[0, 1, 2, 4]].where(
        plan.batches[[0, 1, 2, 4]] != plan.batches[3, 0, 0], (plan.batches[3, 0, 0] + 1) % 60
    )
    deltas = CudaEngine(small, local, ON_CPU).train(plan, Rows())["deltas"]
    assert deltas[3].isnan().any()
    assert deltas[[0, 1, 2, 4]].isfinite().all()


def test_statistics_over_a_batch_are_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 4))
    with pytest.raises(UnsupportedModelError, match="running statistics"):
        CudaEngine(problem(lambda seed: net), LocalTraining(Sgd(0.1)), ON_CPU)


def test_says_why_a_model_is_not_a_chain() -> None:
    assert "vmap" in CudaEngine(problem(residual_net), LocalTraining(Sgd(0.1)), ON_CPU).notes[0]


def test_dense_layers_along_a_dimension_are_no_chain_and_right_all_the_same() -> None:
    def along_rows(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4))

    small, local = problem(along_rows), LocalTraining(Sgd(0.1))
    plan, engine = unequal_round(small), CudaEngine(small, local, ON_CPU)
    assert "shapes" in engine.notes[0]
    assert_same(engine, reference(small, local, plan), plan)


def test_dropout_inside_vmap_is_a_function_of_the_seeds_and_leaves_torchs_generator_alone() -> None:
    small = problem(dropout_net)
    plan, local = replace(unequal_round(small), start=start(small)), LocalTraining(Sgd(0.1))
    engine = CudaEngine(small, local, CudaOptions(device="cpu", uses_chain=False))
    before = torch.get_rng_state()
    first, again = engine.train(plan, Rows())["deltas"], engine.train(plan, Rows())["deltas"]
    other = engine.train(replace(plan, seeds=plan.seeds + 1), Rows())["deltas"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")
def test_without_a_gpu_says_so() -> None:
    with pytest.raises(NoGpuError, match="got none"):
        CudaEngine(problem(), LocalTraining(Sgd(0.1)))
