"""A round's trees become the next ensemble: `cloud.aggregation.bagging` over stored updates; see `aggregating`."""

from cloud.aggregation.bagging import Bagging
from cloud.campaigns.aggregating import Aggregated, Named
from cloud.campaigns.errors import AggregationFailedError
from shared.errors import FleetlearnError
from shared.strategies import FedXgbBaggingSettings
from shared.tensors import Tensors
from shared.trees.boosting import Boosting
from shared.trees.ensemble import joined, read_ensemble


class TreeAggregator:
    """One strategy over one task's trees. It remembers nothing from one round to the next."""

    def __init__(self, settings: FedXgbBaggingSettings, boosting: Boosting) -> None:
        self._rule = Bagging(settings.is_averaged)
        self._boosting = boosting

    def sent(self, model: Tensors, memory: Tensors) -> Tensors:
        """Nothing goes beside the model."""
        return {}

    def aggregate(self, model: Tensors, memory: Tensors, updates: Named) -> Aggregated:
        """The next ensemble, with the updates' trees in their order. Raises AggregationFailedError."""
        grown = (read_ensemble(update.tensors, self._boosting) for _, update in updates)
        try:
            made = joined([read_ensemble(model, self._boosting), self._rule.appended(grown)])
        except FleetlearnError as error:
            raise AggregationFailedError(error.message, hint=error.hint) from error
        return Aggregated(made.tensors, {}, {})
