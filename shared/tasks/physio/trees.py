"""The exercises of the physio task, told by boosted trees from what each window's channels look like on the whole.

The same recordings, subjects and devices; a window is 24 figures, which a gateway computes without a neural network.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared.tasks.physio.task import CLASSES, PhysioTask
from shared.tasks.physio.windows import CHANNELS
from shared.tasks.storage import device_data
from shared.tasks.task import CentralTraining, DeviceData, Examples, Inputs, LocalTraining, Role, Schema, Tolerance
from shared.trees.boosting import Boosting

if TYPE_CHECKING:
    import torch

FIGURES = ("mean", "spread", "least", "most")
"""Of each channel in a window, in this order; all means first."""


class PhysioTreesTask(PhysioTask):
    """See `shared.tasks.task.Task` and `shared.trees.boosting.TreeTask` for what each member means."""

    name = "physio_trees"
    schema = Schema(
        input_name="figures",
        input_shape=(len(FIGURES) * len(CHANNELS),),
        output_name="logits",
        classes=CLASSES,
        features=CHANNELS,
    )
    boosting = Boosting(features=len(FIGURES) * len(CHANNELS), classes=len(CLASSES), depth_max=4)
    # From nothing: what is known in public is the cloud's to add, by an epoch or more.
    central_training = CentralTraining(epochs=0, batch_size=0, learning_rate=0.2)
    local_training = LocalTraining(steps=1, learning_rate=0.2, sampling_rate=1.0, max_grad_norm=1.0)
    tolerance = Tolerance(accuracy_loss_max=0.001)

    def model(self, *, seed: int) -> "torch.nn.Module":
        """No trees, whatever the seed."""
        from shared.trees.model import TreeModel

        return TreeModel(self.boosting)

    def features(self, inputs: Inputs) -> NDArray[np.float32]:
        """As physio's, from figures: acceleration as its mean, rotation as its root mean square."""
        mean, spread = inputs[:, : len(CHANNELS)], inputs[:, len(CHANNELS) : 2 * len(CHANNELS)]
        size = np.sqrt(np.square(mean) + np.square(spread))
        return np.concatenate([mean[:, :3], size[:, 3:]], axis=1).astype(np.float32)

    def central_data(self, role: Role) -> Examples:
        return _figures(super().central_data(role))

    def device_slices(self) -> Mapping[str, DeviceData]:
        return {
            name: device_data(train=_figures(each.train), held_out=_figures(each.held_out))
            for name, each in super().device_slices().items()
        }


def _figures(examples: Examples) -> Examples:
    windows = examples.inputs
    figures = [windows.mean(axis=2), windows.std(axis=2), windows.min(axis=2), windows.max(axis=2)]
    return replace(examples, inputs=np.concatenate(figures, axis=1).astype(np.float32))


TASK = PhysioTreesTask()
