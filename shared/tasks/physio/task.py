"""The main reference task: seven exercises from six channels of a watch, split by subject.

Two subjects are public (the base model), one validates (every gate), two are unseen (what is reported), and five wear
the devices: each of their arms is a natural device with seven recordings, one of an exercise, of which one is held out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared.tasks.physio.carrier import Recording, default_cache_dir, recordings
from shared.tasks.physio.windows import CHANNELS, WINDOW_SAMPLES, windows
from shared.tasks.slices import chosen
from shared.tasks.storage import device_data, merge, read_device_folder, write_device_folder
from shared.tasks.task import (
    CentralTraining,
    DeviceData,
    Examples,
    Inputs,
    LocalTraining,
    Role,
    Schema,
    Tolerance,
)

if TYPE_CHECKING:
    import torch

SUBJECTS: Mapping[Role, tuple[int, ...]] = {
    Role.PUBLIC: (1, 2),
    Role.VALIDATION: (8,),
    Role.UNSEEN: (9, 10),
}
DEVICE_SUBJECTS = (3, 4, 5, 6, 7)
SIDES = ("left", "right")
CLASSES = ("pendulum", "abduction", "elevation", "internal_rotation", "external_rotation", "trapezius", "row")


class PhysioTask:
    """See `shared.tasks.task.Task` for what each member means."""

    name = "physio"
    version = "1"
    privacy_unit = "recording"
    schema = Schema(
        input_name="windows",
        input_shape=(len(CHANNELS), WINDOW_SAMPLES),
        output_name="logits",
        classes=CLASSES,
        features=CHANNELS,
    )
    central_training = CentralTraining(epochs=15, batch_size=64, learning_rate=2e-3, weight_decay=1e-3)
    local_training = LocalTraining(
        steps=1,
        learning_rate=1.0,
        sampling_rate=1.0,
        max_grad_norm=1.0,
        trained_parameters=("head.",),
        without_privacy=LocalTraining(steps=20, learning_rate=0.1, sampling_rate=0.5, max_grad_norm=1.0),
    )
    tolerance = Tolerance(accuracy_loss_max=0.03)

    def model(self, *, seed: int) -> "torch.nn.Module":
        # torch costs seconds and 270 MB: only who trains pays for it.
        import torch

        from shared.tasks.physio.network import PhysioNet

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not CUDA's: forking leaves that as it is
            return PhysioNet()

    def loss(self, outputs: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels)

    def features(self, inputs: Inputs) -> NDArray[np.float32]:
        """Acceleration as its mean over the window, in g; rotation as its root mean square, in rad/s.

        Acceleration stands for gravity, so an offset or a wrong gain moves its level; rotation swings around zero, so a
        wrong gain, noise or a dead sensor moves its size. Each was steadier between people than the other choice.
        """
        level = inputs[:, :3].mean(axis=2)
        size = np.sqrt(np.square(inputs[:, 3:]).mean(axis=2))
        return np.concatenate([level, size], axis=1).astype(np.float32)

    def central_data(self, role: Role) -> Examples:
        subjects = SUBJECTS[role]
        return windows(recording for recording in _recordings() if recording.subject in subjects)

    def device_data(self, data_dir: Path) -> DeviceData:
        return read_device_folder(data_dir, input_shape=self.schema.input_shape, classes=len(CLASSES))

    def device_slices(self) -> Mapping[str, DeviceData]:
        """Ten, first every left arm, then every right: dealt to five devices, each gets one subject's two arms."""
        everything = _recordings()
        return {
            f"subject-{subject}-{side}": _slice(everything, subject=subject, side=side)
            for side in SIDES
            for subject in DEVICE_SUBJECTS
        }

    def write_device_data(self, data_dir: Path, slices: tuple[str, ...]) -> None:
        known = self.device_slices()
        write_device_folder(data_dir, merge(known[name] for name in chosen(slices, tuple(known))))


def _recordings() -> list[Recording]:
    return recordings(default_cache_dir())


def _slice(everything: list[Recording], *, subject: int, side: str) -> DeviceData:
    own = [recording for recording in everything if (recording.subject, recording.side) == (subject, side)]
    # A subject's two arms hold out different exercises, so a device with both arms trains on all seven.
    held_out_label = (subject + 3 * SIDES.index(side)) % len(CLASSES)
    return device_data(
        train=windows(recording for recording in own if recording.label != held_out_label),
        held_out=windows(recording for recording in own if recording.label == held_out_label),
    )
