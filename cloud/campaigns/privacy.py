"""What a campaign may cost each device's data before it starts, and what it may have cost them so far. Pure."""

from collections.abc import Sequence

from cloud.campaigns.models import RoundRow
from cloud.campaigns.past import Past
from cloud.training.privacy_plan import plan_privacy
from shared.accountant import epsilon_after
from shared.api.campaigns import DevicePrivacy, PrivacyBudget
from shared.privacy import PrivacySpec, PrivacySpent
from shared.tasks.task import Task


def planned(task: Task, budget: PrivacyBudget | None, *, rounds: int) -> PrivacySpec | None:
    """The mechanism whose rounds together keep the budget. Raises PrivacyPlanError where none does."""
    if budget is None:
        return None
    local = task.local_training.chosen(private=True)
    return plan_privacy(
        epsilon=budget.epsilon,
        delta=budget.delta,
        sampling_rate=local.sampling_rate,
        steps_per_round=local.steps,
        rounds=rounds,
        max_grad_norm=local.max_grad_norm,
    )


def spent_by_device(spec: PrivacySpec | None, tries: Sequence[RoundRow]) -> list[DevicePrivacy]:
    """Every device that may have charged its ledger, the most expensive first.

    A device that fetched work and fell silent counts: it may have trained, and its ledger then says so.
    """
    if spec is None:
        return []
    ledgers = _ledgers(tries)
    found = [
        DevicePrivacy(
            device_id=device,
            rounds=rounds,
            epsilon=epsilon_after(spec, rounds=rounds),
            delta=spec.delta,
            ledger=ledgers.get(device),
        )
        for device, rounds in Past.of(tries).takes.items()
    ]
    return sorted(found, key=lambda each: (-each.epsilon, each.device_id))


def _ledgers(tries: Sequence[RoundRow]) -> dict[str, PrivacySpent]:
    """What each device's ledger said last."""
    outcomes = [outcome for row in tries for outcome in row.outcomes if outcome.get("privacy")]
    return {outcome["device_id"]: PrivacySpent.model_validate(outcome["privacy"]) for outcome in outcomes}
