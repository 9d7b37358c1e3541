"""Names of the strategies a campaign may ask for. Light: the API knows them without loading Flower."""

from collections.abc import Mapping

from shared.strategies import UnknownStrategyError

STRATEGIES: Mapping[str, str] = {
    "bulyan": "Bulyan",
    "fedadagrad": "FedAdagrad",
    "fedadam": "FedAdam",
    "fedavg": "FedAvg",
    "fedmedian": "FedMedian",
    "fedtrimmedavg": "FedTrimmedAvg",
    "fedyogi": "FedYogi",
    "krum": "Krum",
    "multikrum": "MultiKrum",
}
"""Our name to the class in `flwr.serverapp.strategy`: those that work with Flower's own defaults.

FedProx and FedAvgM are left out: with Flower's defaults both are FedAvg under another name.
"""


def check_strategy(name: str) -> str:
    """The name, known. Raises UnknownStrategyError, naming those that are."""
    if name not in STRATEGIES:
        raise UnknownStrategyError(f"Expected a strategy among {', '.join(STRATEGIES)}, got {name[:80]!r}")
    return name
