"""What every streaming rule promises, whatever it computes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.aggregation.averaging import FedAvg
from cloud.aggregation.choice import rule_of
from cloud.aggregation.errors import MissingLossError, NothingToAggregateError
from cloud.aggregation.fedbuff import FedBuff
from cloud.aggregation.feddyn import FedDyn
from cloud.aggregation.fednova import FedNova
from cloud.aggregation.qfedavg import QFedAvg
from cloud.aggregation.rule import Rule, Updates
from cloud.aggregation.scaffold import Scaffold
from cloud.aggregation.server_optimizers import Optimized, ServerAdam, ServerSgd
from shared.strategies import STRATEGIES, FedXgbBaggingSettings, RobustSettings, strategy
from tests.cloud.aggregation.rounds import after, folded, rows_of, updates

CLIENTS, PARAMETERS = 5, 7
ALL = {
    name: rule_of(strategy(name, {"local": ["head"]} if name in ("fedper", "fedrep") else {}), population=20)
    for name, settings in STRATEGIES.items()
    if not issubclass(settings, RobustSettings | FedXgbBaggingSettings)
} | {
    "fednova with momentum": FedNova(momentum=0.9, proximal_rate=0.1),
    "scaffold with adam": Optimized(Scaffold(population=20), ServerAdam()),
}


def some_updates(seed: int, *, clients: int = CLIENTS) -> Updates:
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(clients, generator=random, dtype=torch.float64)

    def normal() -> torch.Tensor:
        return torch.randn(clients, PARAMETERS, generator=random)

    steps = uniform(1, 9).round()
    staleness = uniform(0, 4).round()
    return updates(
        normal(),
        weights=uniform(1, 100),
        steps=steps,
        losses=uniform(0.1, 3),
        staleness=staleness,
        control=normal(),
    )


def some_model(seed: int) -> torch.Tensor:
    return torch.randn(PARAMETERS, generator=torch.Generator().manual_seed(seed + 1_000_000))


def every_rule(test: Callable[..., None]) -> Callable[..., None]:
    each: Callable[..., None] = given(seed=st.integers(0, 10_000))(test)
    each = settings(max_examples=5, deadline=None)(each)
    every: Callable[..., None] = pytest.mark.parametrize("rule", ALL.values(), ids=ALL)(each)
    return every


@every_rule
def test_updates_one_by_one_in_any_order_are_as_good_as_all_at_once(rule: Rule, seed: int) -> None:
    model, all_of_them = some_model(seed), some_updates(seed)
    state = rule.init(model)
    at_once = rule.finish(model, state, folded(rule, model, [all_of_them]))
    order = torch.randperm(CLIENTS, generator=torch.Generator().manual_seed(seed)).tolist()
    one_by_one = rule.finish(model, state, folded(rule, model, [rows_of(all_of_them, [row]) for row in order]))
    torch.testing.assert_close(one_by_one, at_once, rtol=1e-4, atol=1e-5)


@every_rule
def test_two_folds_add_up_to_the_fold_of_all(rule: Rule, seed: int) -> None:
    model, all_of_them = some_model(seed), some_updates(seed)
    one, other = (folded(rule, model, [rows_of(all_of_them, rows)]) for rows in ([0, 1], [2, 3, 4]))
    both = folded(rule, model, [all_of_them])
    assert one.keys() == both.keys()
    torch.testing.assert_close({name: one[name] + other[name] for name in both}, both, rtol=1e-5, atol=1e-5)


@every_rule
def test_only_the_proportions_of_weights_count(rule: Rule, seed: int) -> None:
    model, found = some_model(seed), some_updates(seed)
    scaled = replace(found, weights=found.weights * 1000)
    torch.testing.assert_close(after(rule, model, scaled), after(rule, model, found), rtol=1e-4, atol=1e-5)


@every_rule
def test_neither_model_nor_state_is_changed(rule: Rule, seed: int) -> None:
    model, state = after(rule, some_model(seed), some_updates(seed))
    before = model.clone(), {name: value.clone() for name, value in state.items()}
    rule.finish(model, state, folded(rule, model, [some_updates(seed + 1)]))
    torch.testing.assert_close((model, state), before, rtol=0, atol=0)


@every_rule
def test_model_and_state_keep_their_shapes_and_types(rule: Rule, seed: int) -> None:
    model = some_model(seed)
    moved, state = after(rule, model, some_updates(seed), some_updates(seed + 1))
    assert (moved.dtype, moved.shape) == (model.dtype, model.shape)
    fresh = rule.init(model)
    assert {name: (value.dtype, value.shape) for name, value in state.items()} == {
        name: (value.dtype, value.shape) for name, value in fresh.items()
    }
    assert all(vector.shape == model.shape for vector in rule.sent(state).values())


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL)
def test_a_round_without_updates_has_no_model(rule: Rule) -> None:
    model = torch.zeros(PARAMETERS)
    with pytest.raises(NothingToAggregateError):
        rule.finish(model, rule.init(model), rule.begin(model))


SPECIAL_CASES: dict[str, Rule] = {
    "momentum zero": Optimized(FedAvg(), ServerSgd()),
    "steps alike": FedNova(),
    "steps alike, with momentum": FedNova(momentum=0.9),
    "nothing stale": FedBuff(),
}


@pytest.mark.parametrize("rule", SPECIAL_CASES.values(), ids=SPECIAL_CASES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_rules_are_fedavg_where_their_reason_is_absent(rule: Rule, seed: int) -> None:
    model, found = some_model(seed), some_updates(seed)
    alike = replace(found, steps=torch.full((CLIENTS,), 4.0).double(), staleness=torch.zeros(CLIENTS).double())
    expected, _ = after(FedAvg(), model, alike)
    torch.testing.assert_close(after(rule, model, alike)[0], expected, rtol=1e-5, atol=1e-6)
    # The control: where the reason is there, most of them are not.
    if rule != SPECIAL_CASES["momentum zero"]:
        assert not torch.allclose(after(rule, model, found)[0], after(FedAvg(), model, found)[0], atol=1e-4)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_without_q_all_clients_pull_alike(seed: int) -> None:
    model, found = some_model(seed), some_updates(seed)
    plain, _ = after(FedAvg(), model, replace(found, weights=torch.ones(CLIENTS).double()))
    torch.testing.assert_close(after(QFedAvg(q=0), model, found)[0], plain, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after(QFedAvg(q=2), model, found)[0], plain, atol=1e-4)


def test_q_needs_each_client_to_have_measured_the_model_it_got() -> None:
    rule, model = QFedAvg(), torch.zeros(2)
    with pytest.raises(MissingLossError):
        rule.add(rule.begin(model), updates(torch.ones(1, 2), losses=[float("nan")]))


def test_a_client_that_took_no_step_moves_nobody_in_fednova() -> None:
    model = torch.zeros(1)
    moved, _ = after(FedNova(), model, updates(torch.tensor([[4.0], [0.0]]), steps=[4, 0]))
    assert moved.item() == pytest.approx(1.0)  # two mean steps of half a unit, as FedAvg's would be two


@pytest.mark.parametrize(("momentum", "pull"), [(0.9, 0.0), (0.0, 0.2), (0.5, 0.1)])
def test_fednova_counts_as_far_as_the_clients_sgd_goes(momentum: float, pull: float) -> None:
    """Clients with one constant gradient agree, however many steps they take: nothing is left of the numbers."""
    distances = []
    for steps in (1, 3, 10):
        weight = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=momentum)
        for _ in range(steps):
            weight.grad = -1 + pull / 0.1 * weight.detach()
            optimizer.step()
        distances.append(weight.item() / 0.1)
    found = updates(0.1 * torch.tensor(distances)[:, None], steps=[1, 3, 10])
    moved, _ = after(FedNova(momentum, pull), torch.zeros(1), found)
    assert moved.item() == pytest.approx(0.1 * sum(distances) / 3, rel=1e-5)


def test_stale_updates_move_the_model_less() -> None:
    fresh, _ = after(FedBuff(), torch.zeros(1), updates(torch.ones(2, 1)))
    stale, _ = after(FedBuff(), torch.zeros(1), updates(torch.ones(2, 1), staleness=[3, 3]))
    assert (fresh.item(), stale.item()) == (1.0, 0.5)


def test_the_server_of_feddyn_goes_on_where_all_clients_went() -> None:
    """Worked by hand: h = -0.5 * 2/4 * 1 = -0.25, and the model moves by 1 + 0.25 / 0.5."""
    moved, state = after(FedDyn(population=4, strength=0.5), torch.zeros(1), updates(torch.ones(2, 1)))
    assert (moved.item(), state["drift"].item()) == (1.5, -0.25)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_rule
def test_a_gpu_computes_the_same_with_what_each_client_counts_left_to_the_cpu(rule: Rule, seed: int) -> None:
    model, found = some_model(seed), some_updates(seed)
    there = replace(
        found,
        deltas=found.deltas.cuda(),
        losses=found.losses.cuda(),
        extras={name: value.cuda() for name, value in found.extras.items()},
    )
    on_cpu, on_gpu = after(rule, model, found, found), after(rule, model.cuda(), there, there)
    assert on_gpu[0].is_cuda
    torch.testing.assert_close(on_gpu[0].cpu(), on_cpu[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        {name: value.cpu() for name, value in on_gpu[1].items()}, on_cpu[1], rtol=1e-5, atol=1e-5
    )
