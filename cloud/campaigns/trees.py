"""What goes with trees and what does not, and why: checked before a campaign starts.

`secure/exclusions.py` and `central_privacy/exclusions.py` say the same of secure aggregation and of user-level privacy.
"""

from collections.abc import Mapping

from cloud.campaigns.errors import InvalidCampaignError
from shared.api.campaigns import CampaignCreate
from shared.strategies import FedXgbBaggingSettings, StrategySettings
from shared.tasks.task import Task
from shared.trees.boosting import boosting_of

EXCLUDED: Mapping[str, str] = {
    "privacy": "example-level privacy noises gradients, and a tree's splits are values of the data",
    "compression": "it rounds or drops numbers of a vector, and a tree with other splits is another tree",
}
"""Of what a campaign may ask for, with the reason. Robust and other strategies are not for trees at all."""


def check_trees(asked: CampaignCreate, settings: StrategySettings, task: Task) -> None:
    """Raises InvalidCampaignError where trees meet what is not for trees."""
    has_trees, adds_trees = boosting_of(task) is not None, isinstance(settings, FedXgbBaggingSettings)
    if has_trees and not adds_trees:
        raise InvalidCampaignError(
            f"Expected fedxgb_bagging for {task.name}, whose model is an ensemble of trees, got {settings.name}: "
            "it works on vectors of one length",
            hint="Say --strategy fedxgb_bagging.",
        )
    if adds_trees and not has_trees:
        raise InvalidCampaignError(
            f"Expected a task whose model is an ensemble of trees, for fedxgb_bagging, got {task.name}",
            hint="docs/how_to/boosted_trees.md shows how a task says that it has trees.",
        )
    for name, reason in EXCLUDED.items():
        if has_trees and getattr(asked, name):
            raise InvalidCampaignError(f"Expected no {name} with fedxgb_bagging: {reason}")
