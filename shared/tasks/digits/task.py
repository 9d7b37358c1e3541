"""The small reference task: which digit is it? The 1,797 images carry no writers, so the split is by position.

The set's images come in runs by one writer, so blocks of neighbours, not random draws, go to each role and device.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared.tasks.errors import TaskDataError
from shared.tasks.slices import chosen
from shared.tasks.storage import device_data, merge, read_device_folder, write_device_folder
from shared.tasks.task import (
    CentralTraining,
    DeviceData,
    Examples,
    Inputs,
    Labels,
    LocalTraining,
    Role,
    Schema,
    Tolerance,
)

if TYPE_CHECKING:
    import torch

_RANGES: Mapping[Role, tuple[int, int]] = {
    Role.PUBLIC: (0, 200),
    Role.VALIDATION: (200, 400),
    Role.UNSEEN: (400, 797),
}
_DEVICES = 10
_DEVICE_START = 797
_DEVICE_EXAMPLES = 100
_HELD_OUT_EXAMPLES = 20


class DigitsTask:
    """See `shared.tasks.task.Task` for what each member means."""

    name = "digits"
    version = "1"
    privacy_unit = "example"
    schema = Schema(
        input_name="pixels",
        input_shape=(64,),
        output_name="logits",
        classes=tuple(str(digit) for digit in range(10)),
        features=("ink", "top", "bottom", "left", "right"),
    )
    central_training = CentralTraining(epochs=15, batch_size=32, learning_rate=3e-3)
    local_training = LocalTraining(steps=5, learning_rate=0.5, sampling_rate=0.5, max_grad_norm=1.0)
    tolerance = Tolerance(accuracy_loss_max=0.03)

    def model(self, *, seed: int) -> "torch.nn.Module":
        # torch costs seconds and 270 MB: only who trains pays for it.
        import torch
        from torch import nn

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not CUDA's: forking leaves that as it is
            return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def loss(self, outputs: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels)

    def features(self, inputs: Inputs) -> NDArray[np.float32]:
        """Mean ink of the whole image, and of its four halves."""
        image = inputs.reshape(-1, 8, 8)
        halves = (image, image[:, :4], image[:, 4:], image[:, :, :4], image[:, :, 4:])
        return np.stack([half.mean(axis=(1, 2)) for half in halves], axis=1).astype(np.float32)

    def central_data(self, role: Role) -> Examples:
        return _examples(*_RANGES[role])

    def device_data(self, data_dir: Path) -> DeviceData:
        return read_device_folder(data_dir, input_shape=self.schema.input_shape, classes=len(self.schema.classes))

    def device_slices(self) -> Mapping[str, DeviceData]:
        """Ten artificial devices of 100 images, of which the last 20 are held out."""
        return {f"block-{number}": _block(number) for number in range(_DEVICES)}

    def write_device_data(self, data_dir: Path, slices: tuple[str, ...]) -> None:
        known = self.device_slices()
        write_device_folder(data_dir, merge(known[name] for name in chosen(slices, tuple(known))))


def _block(number: int) -> DeviceData:
    start = _DEVICE_START + number * _DEVICE_EXAMPLES
    middle, end = start + _DEVICE_EXAMPLES - _HELD_OUT_EXAMPLES, start + _DEVICE_EXAMPLES
    return device_data(train=_examples(start, middle), held_out=_examples(middle, end))


def _examples(start: int, end: int) -> Examples:
    pixels, labels = _digits()
    return Examples(
        inputs=pixels[start:end].copy(), labels=labels[start:end].copy(), units=np.arange(start, end, dtype=np.int64)
    )


@cache
def _digits() -> tuple[Inputs, Labels]:
    """All images, 0 to 1, and their labels; parsing them takes 40 ms, and a simulation asks for each slice."""
    try:
        # scikit-learn costs a second, and devices do not have it.
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise TaskDataError(
            "Expected the package scikit-learn, which carries the digits, got none",
            hint="pip install 'fleetlearn[tasks]'",
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), labels.astype(np.int64)
