"""What a task is: one learning problem, defined once, read by everybody.

Trainer, federated client, simulator, exporter, drift monitor and serving agent all read the same object, found by its
entry point in the group `fleetlearn.tasks`. A task of your own is one class with these members:
docs/tutorials/your_own_task.md shows one in under 80 lines, and `fleetlearn task check NAME` says whether it is sound.

torch and data loaders are imported inside the functions that need them: a device that only serves never loads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]


class Role(StrEnum):
    """Whose data it is. Splits are by subject, so no subject is in two roles."""

    PUBLIC = "public"
    """Known to the cloud: base model and calibration."""
    VALIDATION = "validation"
    """Known to the cloud: every gate decides on it."""
    UNSEEN = "unseen"
    """Known to the cloud: the accuracy that is reported; nothing is ever chosen by it."""


@dataclass(frozen=True)
class Examples:
    """Labelled examples: inputs `(n, *input_shape)` float32, labels and units `(n,)` int64.

    `units` numbers the unit of privacy each example belongs to (a recording, a person); examples of one unit share it.
    """

    inputs: Inputs
    labels: Labels
    units: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DeviceData:
    """What one device holds. No unit is both trained on and held out."""

    dataset_id: str
    """SHA-256 of the data: the ledger charges this data set, under whatever task or campaign."""
    train: Examples
    held_out: Examples


@dataclass(frozen=True)
class Schema:
    """The model's interface, as the release manifest states it. Arrays have a leading batch dimension."""

    input_name: str
    input_shape: tuple[int, ...]
    """Shape of one example, float32."""
    output_name: str
    classes: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    features: tuple[str, ...]
    """Names of the monitored features, in the order of `Task.features`."""


@dataclass(frozen=True)
class CentralTraining:
    """How the base model is trained on public data."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class LocalTraining:
    """How one device trains in one round, without or with privacy."""

    steps: int
    learning_rate: float
    sampling_rate: float
    """Chance of a unit to be in a step (Poisson sampling)."""
    max_grad_norm: float
    """L2 bound of a unit's gradient in a step (used with privacy)."""
    trained_parameters: tuple[str, ...] = ()
    """Prefixes of the parameters that rounds train; empty means all. Fewer parameters carry less noise."""
    without_privacy: "LocalTraining | None" = None
    """What a campaign without privacy does instead, where that differs."""

    def chosen(self, *, private: bool) -> "LocalTraining":
        """The settings of a campaign with privacy, or of one without."""
        return self if private or self.without_privacy is None else self.without_privacy


@dataclass(frozen=True)
class Tolerance:
    """What packaging may cost before the release is refused."""

    accuracy_loss_max: float
    """Largest loss of accuracy from fp32 to int8, on validation data, as a fraction."""
    parity_max: float = 1e-4
    """Largest difference between torch's and ONNX Runtime's fp32 outputs, relative to the largest output."""


class Task(Protocol):
    """One learning problem: classification of float32 arrays of a fixed shape."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str:
        """Changes whenever model, data layout or loss change; a device refuses work for another version."""
        ...

    @property
    def schema(self) -> Schema: ...
    @property
    def privacy_unit(self) -> str:
        """What one unit is, in one word: `recording`, `person`, `example`."""
        ...

    @property
    def central_training(self) -> CentralTraining: ...
    @property
    def local_training(self) -> LocalTraining: ...
    @property
    def tolerance(self) -> Tolerance: ...

    def model(self, *, seed: int) -> "torch.nn.Module":
        """A fresh model; the same seed gives the same weights. Every layer supports per-sample gradients."""
        ...

    def loss(self, outputs: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """The mean loss of a batch; its per-example losses are independent of each other."""
        ...

    def features(self, inputs: Inputs) -> NDArray[np.float32]:
        """Drift features `(n, len(schema.features))` of `(n, *input_shape)`; needs numpy alone, it runs on devices."""
        ...

    def central_data(self, role: Role) -> Examples:
        """Data the cloud knows. Raises TaskDataError where the data's package is missing."""
        ...

    def device_data(self, data_dir: Path) -> DeviceData:
        """What the device's folder holds; never a pickle. Raises TaskDataError where it is missing or damaged."""
        ...

    def device_slices(self) -> Mapping[str, DeviceData]:
        """The task's natural devices by name, for demonstrations and simulations; empty where there are none."""
        ...

    def write_device_data(self, data_dir: Path, slices: tuple[str, ...]) -> None:
        """Writes the named slices to a device's folder, in the format that `device_data` reads."""
        ...
