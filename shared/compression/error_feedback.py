"""Error feedback: what did not travel is added to the next update (Karimireddy et al. 2019, arXiv:1901.09847).

    corrected = delta + residual
    sent      = compressed(corrected)
    residual  = corrected - sent

Guarantees:
    The sum of all that was received is the sum of all updates, less the last residual (to rounding). With a
    compression whose error is below its input, as each of ours is, the residual stays bounded.

A device that takes part seldom corrects late, with what has become old; that is the price of its memory.
"""

from typing import TYPE_CHECKING

from shared.compression.codec import Codec
from shared.compression.draws import seed_tensor

if TYPE_CHECKING:
    import torch


def encode_with_feedback(
    codec: Codec, delta: "torch.Tensor", residual: "torch.Tensor", *, seed: int, mask: int | None = None
) -> tuple[bytes, "torch.Tensor"]:
    """The payload of an update `(parameters,)`, and the residual after it; see `Codec.encode` for the arguments.

    The payload and the residual belong together: keep both before one is used. Raises UnencodableError.
    """
    corrected = codec.checked(delta + residual)[None]
    sent = codec.send(corrected, seed_tensor(seed), masks=None if mask is None else seed_tensor(mask))
    return codec.to_bytes(sent), (corrected - codec.receive(sent))[0]


def round_trip_with_feedback(
    codec: Codec, deltas: "torch.Tensor", residuals: "torch.Tensor", seeds: "torch.Tensor"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """What a receiver would decode of a cohort's updates, and the residuals after, `(clients, parameters)` each.

    A row that is not finite is received as NaN, and leaves its residual as it was.
    """
    corrected = deltas + residuals
    received = codec.round_trip(corrected, seeds)
    return received, residuals.where(received.isnan(), corrected - received)
