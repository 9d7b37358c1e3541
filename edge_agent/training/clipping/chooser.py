"""Which engine clips: book-keeping where the model's layers allow it, else Opacus; the sums are the same."""

import torch
from torch import nn

from edge_agent.training.clipping.bookkeeping import BookKeeping
from edge_agent.training.clipping.errors import UnsupportedLayerError
from edge_agent.training.clipping.port import ClippingEngine, MeanLoss
from edge_agent.training.clipping.sums import Sums
from edge_agent.training.clipping.units import Units


def choose_engine(
    model: nn.Module, loss: MeanLoss, *, max_grad_norm: float, inputs: torch.Tensor, labels: torch.Tensor
) -> ClippingEngine:
    """The engine for this model, tried on these few examples; nothing of what it saw is kept.

    Args:
        model: In training mode, with the parameters that are trained marked.
        loss: The mean loss of a batch.
        max_grad_norm: What each unit's gradient is clipped to.
        inputs: At least one example.
        labels: Of the same examples.

    Raises:
        UnclippableModelError: No engine can clip this model.
    """
    bookkeeping = BookKeeping(model, loss, max_grad_norm=max_grad_norm)
    try:
        # The trial must not move what dropout and the like will draw.
        with torch.random.fork_rng(devices=[]):
            bookkeeping.clipped_sums(inputs, labels, Units.single(len(inputs)), Sums(bookkeeping.parameters))
    except UnsupportedLayerError as error:
        bookkeeping.close()
        # Opacus takes seconds to import: only where it is needed.
        from edge_agent.training.clipping.opacus_engine import OpacusEngine

        return OpacusEngine(model, loss, max_grad_norm=max_grad_norm, notes=(error.message,))
    return bookkeeping
