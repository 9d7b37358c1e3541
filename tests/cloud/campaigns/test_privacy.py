"""What a campaign costs in privacy: planned before it starts, and what it may have cost each device so far."""

import pytest

from cloud.campaigns.models import RoundRow
from cloud.campaigns.privacy import planned, spent_by_device
from shared.accountant import PrivacyPlanError, epsilon_of
from shared.api.campaigns import DeviceOutcome, PrivacyBudget
from shared.privacy import MechanismEvent, PrivacySpent
from shared.tasks.registry import load_task

TASK = load_task("digits")
BUDGET = PrivacyBudget(epsilon=8)
LEDGER = PrivacySpent(epsilon=5, delta=1e-5, epsilon_limit=10, dataset_id="d", unit="example")


def _round(number: int, **statuses: str) -> RoundRow:
    outcomes = [
        DeviceOutcome(device_id=name, status=status, privacy=LEDGER if status == "done" else None)
        for name, status in statuses.items()
    ]
    return RoundRow(
        round_id=number, campaign_id="c", round=number, attempt=1, state="done", quorum=1, started_at=0, deadline_at=1,
        fetched=list(statuses), outcomes=[one.model_dump(mode="json") for one in outcomes],
        work_ids={name: f"{number}-{name}" for name in statuses},
    )  # fmt: skip


def test_all_rounds_together_cost_what_was_planned() -> None:
    spec = planned(TASK, BUDGET, rounds=3)
    assert spec is not None
    rounds = [_round(number, a="done") for number in range(1, 4)]
    (spent,) = spent_by_device(spec, rounds)
    assert spent.rounds == 3
    assert 0.98 * 8 < spent.epsilon <= 8
    event = MechanismEvent(
        dataset_id="d",
        unit="example",
        noise_multiplier=spec.noise_multiplier,
        sampling_rate=spec.sampling_rate,
        steps=3 * spec.steps_per_round,
    )
    assert spent.epsilon == pytest.approx(epsilon_of([event], spec.delta))
    assert spent.ledger == LEDGER


def test_a_silent_device_may_have_trained_and_one_that_refused_has_not() -> None:
    spec = planned(TASK, BUDGET, rounds=3)
    found = spent_by_device(spec, [_round(1, a="done", b="silent", c="refused"), _round(2, a="done", b="failed")])
    assert [(each.device_id, each.rounds) for each in found] == [("a", 2), ("b", 2)]
    assert found[1].ledger is None


def test_without_privacy_there_is_nothing_to_plan_or_to_spend() -> None:
    assert planned(TASK, None, rounds=3) is None
    assert spent_by_device(None, [_round(1, a="done")]) == []


def test_a_budget_that_nothing_keeps_is_refused_before_the_campaign_starts() -> None:
    with pytest.raises(PrivacyPlanError):
        planned(TASK, PrivacyBudget(epsilon=1e-6), rounds=10_000)
