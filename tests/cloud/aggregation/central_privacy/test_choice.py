import pytest
import torch

from cloud.aggregation.central_privacy.choice import private_rule_of
from cloud.aggregation.central_privacy.noise import SeededNoise
from cloud.aggregation.errors import PrivacyExcludesError
from cloud.campaigns.user_privacy import planned_for_devices
from shared.accountant import epsilon_of
from shared.api.campaigns import CampaignCreate
from shared.privacy import UserPrivacySpec
from shared.strategies import STRATEGIES, strategy
from tests.cloud.aggregation.rounds import updates

EPSILON = 2


def planned(*, population: int, rate: float) -> UserPrivacySpec:
    """The plan of a campaign of 50 rounds in which each of so many devices takes part at this rate."""
    asked = CampaignCreate.model_validate(
        {
            "task": "digits",
            "model_version_id": "start",
            "rounds": 50,
            "selection": {"draw": "poisson", "rate": rate},
            "user_privacy": {"epsilon": EPSILON, "delta": 1e-6, "clip_norm": 1.0},
        }
    )
    spec = planned_for_devices(asked, population=population)
    assert spec is not None
    return spec


SPEC = planned(population=10_000, rate=0.01)
ALLOWED = {"fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "fedper", "fedrep", "fedbn", "ditto"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_privacy_goes_with_means_and_says_why_not_with_others(name: str) -> None:
    settings, model = strategy(name, {"local": ["head"]} if name in ("fedper", "fedrep") else {}), torch.zeros(3)
    if name not in ALLOWED:
        with pytest.raises(PrivacyExcludesError, match=f"got {name}: "):
            private_rule_of(settings, SPEC, SeededNoise(0))
        return
    rule = private_rule_of(settings, SPEC, SeededNoise(0))
    state = rule.init(model)
    fold = rule.begin(model, rule.sent(state))
    rule.add(fold, updates(torch.ones(5, 3)))
    moved, after = rule.finish(model, state, fold)
    assert moved.isfinite().all()
    assert moved.abs().max() > 0
    assert after.keys() == state.keys()


def test_the_plan_keeps_its_budget_and_part_of_the_rounds_costs_less() -> None:
    whole = epsilon_of([SPEC.event(SPEC.rounds)], SPEC.delta)
    assert 0.98 * EPSILON < whole <= EPSILON
    assert epsilon_of([SPEC.event(10)], SPEC.delta) < whole


def test_sampling_amplifies() -> None:
    everybody = planned(population=100, rate=1.0)
    assert SPEC.noise_multiplier < everybody.noise_multiplier / 10
