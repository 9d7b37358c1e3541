"""The planned noise keeps the budget, barely, and the devices' accountant agrees."""

import pytest

from cloud.training.privacy_plan import plan_privacy
from shared.accountant import PrivacyPlanError, epsilon_of
from shared.privacy import MechanismEvent, PrivacySpec


def _spent(spec: PrivacySpec, *, noise_multiplier: float) -> float:
    event = MechanismEvent(
        dataset_id="data",
        unit="recording",
        noise_multiplier=noise_multiplier,
        sampling_rate=spec.sampling_rate,
        steps=spec.steps_per_round,
    )
    return epsilon_of([event] * spec.rounds, spec.delta)


@pytest.mark.parametrize(
    ("epsilon", "sampling_rate", "steps", "rounds"), [(8, 1.0, 1, 10), (3, 0.5, 5, 4), (1, 0.1, 2, 8)]
)
def test_all_rounds_together_cost_what_was_asked_and_not_much_less(
    epsilon: float, sampling_rate: float, steps: int, rounds: int
) -> None:
    spec = plan_privacy(
        epsilon=epsilon,
        delta=1e-5,
        sampling_rate=sampling_rate,
        steps_per_round=steps,
        rounds=rounds,
        max_grad_norm=1.0,
    )
    assert 0.98 * epsilon < _spent(spec, noise_multiplier=spec.noise_multiplier) <= epsilon
    assert _spent(spec, noise_multiplier=spec.noise_multiplier * 0.95) > epsilon


def test_refuses_a_budget_that_no_noise_can_keep() -> None:
    with pytest.raises(PrivacyPlanError, match="epsilon 1e-09"):
        plan_privacy(epsilon=1e-9, delta=1e-5, sampling_rate=1.0, steps_per_round=100, rounds=100, max_grad_norm=1.0)
