"""A tree ensemble as a torch module, so that trees are measured, checked and packaged as every other model is.

Import it where torch may be imported. It has buffers and no parameters: no gradient goes through a tree.
"""

import numpy as np
import torch

from shared.tasks.torch_model import ModelMismatchError
from shared.tensors import Tensors
from shared.trees.boosting import Boosting
from shared.trees.ensemble import NOTHING, Ensemble, MalformedEnsembleError, read_ensemble


class TreeModel(torch.nn.Module):
    """Margins of an ensemble, which is empty at first and may have any number of trees later."""

    def __init__(self, boosting: Boosting) -> None:
        super().__init__()
        self.boosting = boosting
        self._set(NOTHING)

    def take_tensors(self, tensors: Tensors) -> None:
        """Replaces the ensemble. Raises ModelMismatchError, and then it is what it was."""
        try:
            self._set(read_ensemble(tensors, self.boosting))
        except MalformedEnsembleError as error:
            raise ModelMismatchError(error.message) from error

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits `(examples, classes)`, computed on the CPU wherever the inputs are."""
        return torch.from_numpy(self.ensemble.margins(inputs.cpu().numpy(), self.boosting)).to(inputs.device)

    def _set(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        for name, value in ensemble.tensors.items():
            self.register_buffer(name, torch.from_numpy(np.array(value)))
