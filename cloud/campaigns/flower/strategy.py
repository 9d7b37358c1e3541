"""Flower's strategies by name, their aggregation as one function, and what they remember between rounds as tensors."""

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from cloud.campaigns.errors import AggregationFailedError
from cloud.campaigns.flower.records import tensors_like
from cloud.campaigns.strategies import STRATEGIES, check_strategy
from shared.tensors import Tensors

_REMEMBERED = ("m_t", "v_t")
"""What FedAdagrad, FedAdam and FedYogi keep: dictionaries of arrays. The others keep nothing; what `configure_train`
sets is set again because it is called again."""


def build_strategy(name: str) -> FedAvg:
    """A fresh strategy that asks every device of its grid. Raises UnknownStrategyError.

    Its own minima are one, so that its sampling never waits: who is asked, and how many must answer, is decided before.
    """
    strategy_class = getattr(flower, STRATEGIES[check_strategy(name)])
    built = strategy_class(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
    assert isinstance(built, FedAvg)
    return built


def aggregate(strategy: FedAvg, replies: Iterable[Message], *, server_round: int, model: Tensors) -> Tensors:
    """The new model from the replies, in the shapes and dtypes of the old one.

    Raises:
        AggregationFailedError: The strategy refused the replies, or made or remembers numbers that are not finite.
    """
    arrays, _ = _aggregated(strategy, list(replies), server_round=server_round)
    tensors = tensors_like(arrays, model)
    for name, value in {**tensors, **remembered(strategy)}.items():
        if not np.isfinite(np.asarray(value, np.float64)).all():
            raise AggregationFailedError(f"Expected finite numbers after aggregation, got NaN or infinity in {name!r}")
    return tensors


def remembered(strategy: FedAvg) -> Tensors:
    """What the strategy must not forget until the next round, as `attribute/tensor`; empty for most."""
    kept = {attribute: getattr(strategy, attribute, None) or {} for attribute in _REMEMBERED}
    return {
        f"{attribute}/{name}": np.asarray(value) for attribute, arrays in kept.items() for name, value in arrays.items()
    }


def remind(strategy: FedAvg, memory: Tensors) -> None:
    """Gives a fresh strategy what an earlier one remembered."""
    for attribute in _REMEMBERED:
        prefix = f"{attribute}/"
        arrays = {name.removeprefix(prefix): value for name, value in memory.items() if name.startswith(prefix)}
        if arrays:
            setattr(strategy, attribute, arrays)


def _aggregated(
    strategy: FedAvg, replies: list[Message], *, server_round: int
) -> tuple[ArrayRecord, MetricRecord | None]:
    try:
        with np.errstate(all="ignore"):  # what is not finite is found and said by the caller
            arrays, metrics = strategy.aggregate_train(server_round, replies)
    # A strategy is foreign code over foreign numbers: whatever it raises, this round has no model.
    except Exception as error:
        raise AggregationFailedError(f"Expected {type(strategy).__name__} to aggregate, got {error}") from error
    if arrays is None:
        raise AggregationFailedError(
            f"Expected {type(strategy).__name__} to aggregate {len(replies)} replies, got nothing"
        )
    return arrays, metrics
