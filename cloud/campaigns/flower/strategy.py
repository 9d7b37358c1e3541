"""Our strategies as Flower's: they run in anybody's ServerApp, over any Grid of Flower's.

    RuleStrategy(strategy("scaffold"), population=100).start(grid, initial_arrays, num_rounds=10)

Campaigns run the same arithmetic (`cloud.campaigns.aggregating`) without Flower's messages in between.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from cloud.campaigns.aggregating import Aggregator
from cloud.campaigns.errors import AggregationFailedError
from cloud.campaigns.flower.records import array_record, tensors_of
from cloud.campaigns.updates import WEIGHT_KEY, Update
from shared.layout import Layout
from shared.messages.work import BESIDE, STRATEGY
from shared.strategies import StrategySettings
from shared.tensors import Tensors


class RuleStrategy(FedAvg):
    """One of our strategies; sampling, evaluation and metrics are those of Flower's FedAvg.

    Replies are read one by one and never kept, so that a Grid that hands them over lazily needs the memory of one.
    Clients of a strategy that is more than FedAvg on their side run `edge_agent.training.client_app`.

    Args:
        settings: The strategy.
        population: Clients that may ever take part.
        trained: Names of the arrays that clients train and send back; all unless given.
        **flower: Of Flower's FedAvg. `Any`: its keywords.
    """

    def __init__(
        self,
        settings: StrategySettings,
        *,
        population: int,
        trained: Sequence[str] | None = None,
        **flower: Any,  # Flower's keywords
    ) -> None:
        super().__init__(weighted_by_key=WEIGHT_KEY, **flower)
        self.settings = settings
        self.memory: Tensors = {}
        """What must not be forgotten until the next round: store it, and give it to a fresh strategy to go on."""
        self._population, self._trained = population, trained
        self._model: Tensors = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._model = tensors_of(arrays)
        if not self.settings.is_plain_on_clients:
            config[STRATEGY] = self.settings.model_dump_json()
        messages = list(super().configure_train(server_round, arrays, config, grid))
        with tempfile.TemporaryDirectory() as folder:
            beside = self._aggregator(folder).sent(self._model, self.memory)
        for message in messages:
            if beside:
                message.content[BESIDE] = array_record(beside)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next arrays and the weighted metrics; errors among the replies are left out.

        Raises:
            AggregationFailedError: The replies make no model.
        """
        metrics: list[RecordDict] = []
        with tempfile.TemporaryDirectory() as folder:
            updates = self._updates(replies, metrics)
            made = self._aggregator(folder).aggregate(self._model, self.memory, updates)
        self.memory = made.memory
        return array_record({**self._model, **made.tensors}), self.train_metrics_aggr_fn(metrics, self.weighted_by_key)

    def _updates(self, replies: Iterable[Message], metrics: list[RecordDict]) -> Iterator[tuple[str, Update]]:
        """The updates, one by one; what they measured is noted in `metrics`."""
        names = self._layout().names
        for message in replies:
            if message.has_error():
                continue
            arrays = {name: tensors_of(record) for name, record in message.content.array_records.items()}
            extras = arrays.pop(BESIDE, {})
            tensors = next(iter(arrays.values()), {})
            if missing := sorted(set(names) - tensors.keys()):
                raise AggregationFailedError(f"Expected the array {missing[0]!r} in every reply, one has none")
            (record,) = message.content.metric_records.values()
            metrics.append(RecordDict({"metrics": record}))
            figures = {name: float(value) for name, value in record.items() if isinstance(value, int | float)}
            yield str(message.metadata.src_node_id), Update(tensors, figures, extras)

    def _aggregator(self, folder: str) -> Aggregator:
        return Aggregator(self.settings, self._layout(), population=self._population, folder=Path(folder) / "updates")

    def _layout(self) -> Layout:
        names = self._model if self._trained is None else self._trained
        return Layout.of({name: self._model[name] for name in names})
