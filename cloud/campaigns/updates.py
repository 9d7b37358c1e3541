"""What a device sent, judged before anything is done with it: an update that is not one is rejected with its reason.

Pure: bytes and values in, tensors out. A rejected update is the device's failure, never the campaign's.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from shared.beside import take_beside
from shared.compression.errors import MalformedPayloadError
from shared.compression.updates import compression_of, restore_update
from shared.errors import FleetlearnError
from shared.messages.base import ObjectRef
from shared.tensors import Array, MalformedTensorsError, Tensors, decode
from shared.trees.boosting import Boosting
from shared.trees.ensemble import MalformedEnsembleError, check_grown, read_ensemble

WEIGHT_KEY = "num-examples"
"""The metric that weighs an update, by Flower's convention."""
STEPS_KEY = "steps"
"""Optimizer steps the device took; one where it does not say."""
LOSS_KEY = "start-loss"
"""Mean loss of the model as it was sent, on the device's data."""
WEIGHT_MAX = 10_000_000
"""Most examples one device may claim in a round: a bound on how far one device can pull the average."""
STEPS_MAX = 1_000_000
METRICS_MAX = 64
UPDATE_BYTES_EXTRA_MAX = 1_000_000
"""Most bytes of an update beside its tensors: names, shapes, padding."""


class RejectedUpdateError(FleetlearnError):
    """An update that cannot be aggregated; nothing of it is used."""

    code = "rejected_update"


@dataclass(frozen=True)
class ExpectedTrees:
    """Of a campaign whose devices boost: an update is their new trees, and says nothing of those that were sent."""

    boosting: Boosting
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Expected:
    """What every update of a campaign must have."""

    trained: Collection[str]
    """Names of the tensors that rounds train: all of them must be there, and no other is used."""
    extras: Collection[str] = ()
    """Vectors beside the update, as long as all trained tensors together."""
    metrics: Collection[str] = ()
    """Beside `num-examples`."""
    trees: ExpectedTrees | None = None
    """Instead of trained tensors."""


@dataclass(frozen=True)
class Update:
    """One device's accepted update: the tensors that rounds train, and its metrics with `num-examples`."""

    tensors: Tensors
    metrics: Mapping[str, float]
    extras: Tensors = field(default_factory=dict)
    """Vectors beside it, `(parameters,)` float32 each."""
    compression: str = ""
    """How it was sent; empty: in full."""
    staleness: int = 0
    """Rounds since the one whose model it trained."""

    @property
    def bytes_raw(self) -> int:
        """Its size in full, without names and padding."""
        return sum(value.nbytes for value in (*self.tensors.values(), *self.extras.values()))


@dataclass(frozen=True)
class Verdict:
    """What a robust rule thinks of one device's update."""

    score: float
    """How unlike the others it is, higher is stranger; what it measures is the rule's."""
    is_used: bool
    """Whether it has a part in the new model."""


def read_update(
    payload: bytes, *, ref: ObjectRef, metrics: Mapping[str, float], sent: Tensors, expected: Expected
) -> Update:
    """The update in these bytes, compressed or in full, fit to be averaged.

    Args:
        payload: What the device uploaded, with the digest that it said: the blob store has verified it.
        ref: What the device said it uploaded.
        metrics: What the device said of its training.
        sent: The model that the round sent; shapes and dtypes must be the same, and no other name may be there.
        expected: What the campaign's strategy needs.

    Raises:
        RejectedUpdateError: Length, names, shapes, dtypes or numbers are not what they must be.
    """
    _check_bytes(payload, ref)
    if expected.trees is not None:
        return _read_trees(payload, metrics, expected.trees)
    try:
        sent_as = decode(payload)
        compression = compression_of(sent_as)
        tensors, extras = take_beside(restore_update(sent_as, sent, expected.trained))
    except (MalformedTensorsError, MalformedPayloadError) as error:
        raise RejectedUpdateError(error.message) from error
    _check_tensors(tensors, sent, expected.trained)
    _check_extras(extras, expected, size=sum(sent[name].size for name in expected.trained))
    return Update(
        tensors={name: tensors[name] for name in sent if name in expected.trained},
        metrics=_checked_metrics(metrics, expected.metrics),
        extras={name: extras[name] for name in expected.extras},
        compression=compression,
    )


def bytes_max(sent: Tensors, expected: Expected) -> int:
    """The largest an update may be: nothing larger is even read."""
    if (trees := expected.trees) is not None:
        return trees.boosting.bytes_max(trees.steps) + UPDATE_BYTES_EXTRA_MAX
    trained_bytes = sum(sent[name].nbytes for name in expected.trained)
    return sum(value.nbytes for value in sent.values()) + len(expected.extras) * trained_bytes + UPDATE_BYTES_EXTRA_MAX


def _read_trees(payload: bytes, metrics: Mapping[str, float], expected: ExpectedTrees) -> Update:
    try:
        grown = read_ensemble(decode(payload), expected.boosting)
        check_grown(grown, expected.boosting, steps=expected.steps, learning_rate=expected.learning_rate)
    except (MalformedTensorsError, MalformedEnsembleError) as error:
        raise RejectedUpdateError(error.message) from error
    return Update(grown.tensors, _checked_metrics(metrics, ()))


def _check_bytes(payload: bytes, ref: ObjectRef) -> None:
    if len(payload) != ref.size_bytes:
        raise RejectedUpdateError(f"Expected an update of {ref.size_bytes} bytes, got {len(payload)}")


def _check_tensors(tensors: Tensors, sent: Tensors, trained: Collection[str]) -> None:
    if missing := sorted(set(trained) - tensors.keys()):
        raise RejectedUpdateError(f"Expected the {len(trained)} tensors that rounds train, {missing[0]!r} is missing")
    for name, found in tensors.items():
        _check_tensor(name, found, sent)


def _check_tensor(name: str, found: Array, sent: Tensors) -> None:
    if (expected := sent.get(name)) is None:
        raise RejectedUpdateError(f"Expected tensors of the model alone, got {name[:80]!r}")
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        raise RejectedUpdateError(
            f"Expected tensor {name!r} as {expected.dtype} {expected.shape}, got {found.dtype} {found.shape}"
        )
    _check_finite(name, found)


def _check_extras(extras: Tensors, expected: Expected, *, size: int) -> None:
    for name in expected.extras:
        if (found := extras.get(name)) is None:
            raise RejectedUpdateError(f"Expected the vector {name!r} beside the update, it is missing")
        if found.shape != (size,) or found.dtype != np.float32:
            raise RejectedUpdateError(f"Expected {name!r} as float32 {(size,)}, got {found.dtype} {found.shape}")
        _check_finite(name, found)


def _check_finite(name: str, found: Array) -> None:
    if not np.isfinite(found).all():
        raise RejectedUpdateError(f"Expected finite numbers in tensor {name!r}, got NaN or infinity")


def _checked_metrics(metrics: Mapping[str, float], wanted: Collection[str]) -> dict[str, float]:
    if len(metrics) > METRICS_MAX:
        raise RejectedUpdateError(f"Expected at most {METRICS_MAX} metrics, got {len(metrics)}")
    if bad := sorted(name for name, value in metrics.items() if not math.isfinite(value)):
        raise RejectedUpdateError(f"Expected finite metrics, got {bad[0]!r} as NaN or infinity")
    weight = metrics.get(WEIGHT_KEY)
    if weight is None or not 0 < weight <= WEIGHT_MAX:
        raise RejectedUpdateError(f"Expected {WEIGHT_KEY!r} above 0 and up to {WEIGHT_MAX}, got {weight}")
    if missing := sorted(set(wanted) - metrics.keys()):
        raise RejectedUpdateError(
            f"Expected the metric {missing[0]!r}, which the campaign's strategy needs; it is missing"
        )
    if not 0 <= metrics.get(STEPS_KEY, 1) <= STEPS_MAX:
        raise RejectedUpdateError(f"Expected {STEPS_KEY!r} from 0 to {STEPS_MAX}, got {metrics[STEPS_KEY]}")
    return dict(metrics)
