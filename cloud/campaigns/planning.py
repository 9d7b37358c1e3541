"""A campaign before it is one: what is asked for, checked without the database, and what it will cost in privacy.

Pure, and slow: to find the least noise that keeps a budget takes a second. So a plan is a value, made before the
transaction that keeps it.
"""

from dataclasses import dataclass

from cloud.campaigns.errors import InvalidCampaignError
from cloud.campaigns.privacy import planned
from cloud.campaigns.secure.exclusions import check_secure
from cloud.campaigns.trees import check_trees
from cloud.campaigns.user_privacy import check_user_privacy, planned_for_devices
from shared.accountant import PrivacyPlanError
from shared.api.campaigns import CampaignCreate, SelectionRules
from shared.compression.settings import Compression
from shared.privacy import PrivacySpec, UserPrivacySpec
from shared.strategies import FedBuffSettings, StrategySettings, expect_stable, strategy
from shared.tasks.registry import load_task
from shared.tasks.task import Task


@dataclass(frozen=True)
class Plan:
    """What is asked for, and what follows from it."""

    asked: CampaignCreate
    task: Task
    settings: StrategySettings
    compression: str
    """`asked.compression` in its one spelling; empty: updates come in full."""
    privacy: PrivacySpec | None
    user_privacy: UserPrivacySpec | None


def make_plan(asked: CampaignCreate, *, population: int) -> Plan:
    """The plan.

    Args:
        asked: What is asked for.
        population: Devices that may take part; counts where devices are hidden as a whole.

    Raises:
        UnknownTaskError: The task is not installed here.
        UnknownStrategyError: There is no such strategy.
        UnknownCompressionError: There is no such compression.
        StrategySettingError: It has no such setting, or not with this value.
        InvalidCampaignError: The parts contradict each other, or no noise keeps the budget.
    """
    task = load_task(asked.task)
    settings = _checked_strategy(asked, task)
    compression = str(Compression.parse(asked.compression)) if asked.compression else ""
    check_trees(asked, settings, task)
    check_secure(asked)
    check_user_privacy(asked, settings)
    _check_selection(asked, settings)
    try:
        privacy = planned(task, asked.privacy, rounds=asked.rounds)
        user_privacy = planned_for_devices(asked, population=population)
    except PrivacyPlanError as error:
        raise InvalidCampaignError(error.message, hint=error.hint) from error
    return Plan(asked, task, settings, compression, privacy, user_privacy)


def check_sizes(rules: SelectionRules, *, quorum: int) -> None:
    """Raises InvalidCampaignError for a cohort that can never be a quorum."""
    for name, count in (("cohort", rules.cohort), ("enough", rules.enough)):
        if count is not None and count < quorum:
            raise InvalidCampaignError(f"Expected {name} to be at least the quorum, {quorum}, got {count}")


def _checked_strategy(asked: CampaignCreate, task: Task) -> StrategySettings:
    settings = strategy(asked.strategy, asked.strategy_settings)
    local = task.local_training.chosen(private=asked.privacy is not None)
    expect_stable(settings, learning_rate=local.learning_rate)
    return settings


def _check_selection(asked: CampaignCreate, settings: StrategySettings) -> None:
    if asked.selection.enough is not None and isinstance(settings, FedBuffSettings):
        raise InvalidCampaignError("Expected no selection.enough with fedbuff, whose buffer says how many are enough")
    check_sizes(asked.selection, quorum=asked.quorum)
