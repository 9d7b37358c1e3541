import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.training.algorithms.algorithm import ClientAlgorithm
from edge_agent.training.algorithms.choice import algorithm_of
from edge_agent.training.algorithms.feddyn import FedDyn
from edge_agent.training.algorithms.personal import Ditto, LocalParameters, normalization_names
from edge_agent.training.algorithms.plain import Plain
from edge_agent.training.algorithms.scaffold import Scaffold
from shared.layout import Layout
from shared.strategies import STRATEGIES, StrategySettingError, strategy

PARAMETERS, CLIENTS = 6, 3
ALGORITHMS: dict[str, ClientAlgorithm] = {
    "plain": Plain(),
    "scaffold": Scaffold(),
    "feddyn": FedDyn(0.3),
    "ditto": Ditto(0.5),
    "local parameters": LocalParameters(torch.tensor([1, 4])),
}


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GroupNorm(2, 4), torch.nn.Linear(4, 2))


def layout() -> Layout:
    return Layout.of(dict(network().named_parameters()))


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_stacked_cohort_gets_what_each_client_gets_alone(algorithm: ClientAlgorithm, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    model, received = torch.randn(PARAMETERS, generator=random), {"control": torch.randn(PARAMETERS, generator=random)}
    kept = {name: torch.randn(CLIENTS, *value.shape, generator=random) for name, value in algorithm.init(model).items()}
    steps = torch.tensor([0, 2, 5])
    starts = algorithm.starts(model, received, kept)
    assert len(starts) == len(algorithm.proximals)
    deltas = [torch.randn(CLIENTS, PARAMETERS, generator=random) for _ in starts]
    stacked = algorithm.finish(model, received, kept, deltas, steps=steps, learning_rate=0.1)
    for client in range(CLIENTS):
        own = {name: value[client] for name, value in kept.items()}
        for together, alone in zip(starts, algorithm.starts(model, received, own), strict=True):
            assert torch.equal(together.weights.expand(CLIENTS, PARAMETERS)[client], alone.weights)
            if together.linear is not None and alone.linear is not None:
                assert torch.equal(together.linear[client], alone.linear)
        done = algorithm.finish(
            model, received, own, [delta[client] for delta in deltas], steps=steps[client], learning_rate=0.1
        )
        torch.testing.assert_close(done.delta, stacked.delta[client])
        torch.testing.assert_close(dict(done.kept), {name: value[client] for name, value in stacked.kept.items()})
        torch.testing.assert_close(dict(done.extras), {name: value[client] for name, value in stacked.extras.items()})


def test_a_client_without_steps_keeps_its_control() -> None:
    kept = {"control": torch.tensor([1.0, 2.0])}
    received = {"control": torch.tensor([5.0, 5.0])}
    nothing = torch.zeros(2)
    done = Scaffold().finish(nothing, received, kept, [nothing], steps=torch.tensor(0), learning_rate=0.1)
    assert torch.equal(done.kept["control"], kept["control"])
    assert torch.equal(done.extras["control"], nothing)


def test_local_parameters_never_leave_and_always_come_back() -> None:
    algorithm, model = LocalParameters(torch.tensor([1])), torch.tensor([1.0, 1.0, 1.0])
    done = algorithm.finish(
        model, {}, algorithm.init(model), [torch.tensor([0.5, 7.0, 0.5])], steps=torch.tensor(1), learning_rate=0.1
    )
    assert done.delta.tolist() == [0.5, 0.0, 0.5]
    (start,) = algorithm.starts(torch.tensor([2.0, 1.0, 2.0]), {}, done.kept)
    assert start.weights.tolist() == [2.0, 8.0, 2.0]


def test_fedper_keeps_the_layers_it_is_told_and_fedbn_the_normalizations() -> None:
    slices = layout().slices
    head = algorithm_of(strategy("fedper", {"local": "2."}), network(), layout())
    normalizations = algorithm_of(strategy("fedbn"), network(), layout())
    assert isinstance(head, LocalParameters)
    assert isinstance(normalizations, LocalParameters)
    assert head.positions.tolist() == list(range(slices["2.weight"].start, slices["2.bias"].stop))
    assert normalizations.positions.tolist() == list(range(slices["1.weight"].start, slices["1.bias"].stop))
    assert normalization_names(network()) == ("1.weight", "1.bias")


@pytest.mark.parametrize("local", ["nothing.", "0.,1.,2."])
def test_keeping_nothing_or_everything_local_is_refused(local: str) -> None:
    with pytest.raises(StrategySettingError, match=r"0\.weight"):
        algorithm_of(strategy("fedper", {"local": local}), network(), layout())


def test_every_strategy_has_a_client() -> None:
    for name in STRATEGIES:
        algorithm = algorithm_of(
            strategy(name, {"local": "2."} if name in ("fedper", "fedrep") else {}), network(), layout()
        )
        assert algorithm.wants_start_loss == (name == "qfedavg")
        assert algorithm.proximals[0] == {"fedprox": 0.01, "feddyn": 0.1}.get(name, 0.0)
