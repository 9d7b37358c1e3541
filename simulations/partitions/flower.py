"""Partitioners of flwr-datasets, where it is installed: any of them, by its class's name.

It works on Hugging Face data sets, so the labels become one, and the examples' numbers come back.
"""

from typing import Any

import numpy as np

from shared.errors import ExtraNotInstalledError
from simulations.partitions.errors import ImpossiblePartitionError
from simulations.partitions.settings import Flower
from simulations.partitions.shares import Rows, Shares, shares_by_size

_NUMBER, _LABEL, _GROUP = "number", "label", "group"


def deal_as_flower(settings: Flower, labels: Rows, *, clients: int | None, groups: Rows | None, seed: int) -> Shares:
    """What the named partitioner makes of these labels.

    Raises:
        ExtraNotInstalledError: flwr-datasets is missing.
        ImpossiblePartitionError: It has no such partitioner, refuses the arguments, or leaves a client nothing.
    """
    try:
        # Two seconds and 200 MB: only who names one of its partitioners pays.
        import flwr_datasets.partitioner as partitioners
        from datasets import Dataset
    except ImportError as error:
        raise ExtraNotInstalledError("The partition 'flower'", extra="huggingface") from error
    chosen = getattr(partitioners, settings.partitioner, None)
    if chosen is None:
        known = ", ".join(name for name in dir(partitioners) if name.endswith("Partitioner"))
        raise ImpossiblePartitionError(f"Expected one of {known}, got {settings.partitioner!r}")
    columns = {_NUMBER: np.arange(len(labels)), _LABEL: labels} | ({} if groups is None else {_GROUP: groups})
    try:
        partitioner = chosen(**_arguments(settings, chosen, clients, seed))
        partitioner.dataset = Dataset.from_dict(columns)
        parts = [
            np.asarray(partitioner.load_partition(k)[_NUMBER], np.int64) for k in range(partitioner.num_partitions)
        ]
    # It raises ValueError, TypeError and what its parts raise.
    except Exception as error:
        raise ImpossiblePartitionError(f"flwr-datasets' {settings.partitioner} refused: {error}") from error
    rows, sizes = np.concatenate(parts), np.array([len(part) for part in parts])
    if len(np.unique(rows)) != len(labels) or len(rows) != len(labels) or sizes.min() == 0:
        raise ImpossiblePartitionError(
            f"Expected each example with one client and one or more with each, got otherwise by {settings.partitioner}"
        )
    return shares_by_size(rows, sizes)


def _arguments(settings: Flower, chosen: Any, clients: int | None, seed: int) -> dict[str, Any]:
    """Whatever of ours the class takes by its own names; `options` come on top."""
    import inspect

    known = inspect.signature(chosen).parameters
    ours = {"num_partitions": clients, "partition_by": _LABEL, "seed": seed}
    if settings.partitioner in ("NaturalIdPartitioner", "GroupedNaturalIdPartitioner", "VerticalEvenPartitioner"):
        ours["partition_by"] = _GROUP
    return {name: value for name, value in ours.items() if name in known and value is not None} | settings.options
