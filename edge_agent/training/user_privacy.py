"""The device's own half of user-level privacy: what leaves it is no longer than the campaign's bound.

The coordinator clips once more, since a device may lie; here it is so that the coordinator, and whoever reads its disk,
sees no more of the device than the sum will hold of it.
"""

import numpy as np
import torch

from shared.compression.updates import layout_of
from shared.messages.work import UserWork
from shared.tensors import Tensors
from shared.user_privacy import clip_factors


def clipped(update: Tensors, model: Tensors, user: UserWork | None) -> Tensors:
    """The update within the bound; as it is where the bound adapts, since the coordinator must see who is within.

    Args:
        update: New values of the trained tensors alone.
        model: As it was sent.
        user: What was asked for, if it was.
    """
    if user is None or user.spec.adaptive is not None:
        return update
    layout = layout_of(model, update)
    sent = layout.flatten(model)
    delta = layout.flatten(update) - sent
    (factor,), _ = clip_factors(torch.from_numpy(delta)[None], user.clip_norm)
    if factor == 1:
        return update
    moved = layout.split(sent + float(factor) * delta)
    return {name: np.asarray(value).astype(update[name].dtype) for name, value in moved.items()}
