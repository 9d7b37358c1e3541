"""What leaves the device: the update as the campaign asked for it, or in full where this agent does not know how.

Compressing comes after training and its noise, and looks at nothing else: with privacy it is post-processing, and costs
none. What did not travel is kept with the update, and added to the one of the campaign's next round.
"""

from dataclasses import dataclass, field

import numpy as np

from shared.beside import put_beside, take_beside
from shared.compression.errors import UnknownCompressionError
from shared.compression.settings import Compression
from shared.compression.updates import Vector, compress_update, restore_update
from shared.tensors import Array, MalformedTensorsError, Tensors, decode, encode

RESIDUAL = "compression/residual"
"""In what is kept for the campaign's next round: the vector that did not travel."""


@dataclass(frozen=True)
class Outgoing:
    """An update, ready to be stored and sent."""

    update: bytes
    kept: Tensors
    """For the campaign's next round; empty without error feedback."""
    rounding: Tensors = field(default_factory=dict)
    """For each vector beside the update, what is received minus what it was: compression rounds."""


def outgoing(
    update: Tensors, model: Tensors, words: str, *, kept: bytes | None, seed: int, mask: int | None = None
) -> Outgoing:
    """The update as it leaves.

    Args:
        update: New values of the trained tensors, and vectors beside them.
        model: As it was sent.
        words: The compression that was asked for; empty is none.
        kept: What was kept of the campaign's newest update that counted.
        seed: Fresh for each update.
        mask: Seed of the whole cohort's positions, under secure aggregation.
    """
    compression = _understood(words)[0]
    if compression.is_lossless:
        return Outgoing(encode(update), {})
    tensors, vectors = take_beside(update)
    beside = put_beside({}, vectors)
    sent = compress_update(tensors, model, compression, residual=_residual(kept), seed=seed, mask=mask, beside=beside)
    residual: Tensors = {} if sent.residual is None else {RESIDUAL: sent.residual}
    return Outgoing(encode(sent.tensors), residual, _rounding(vectors, sent.tensors, model, tuple(tensors)))


def why_in_full(words: str) -> str:
    """One sentence, where an update is sent in full though something else was asked; otherwise nothing."""
    return _understood(words)[1]


def _rounding(vectors: Tensors, sent: Tensors, model: Tensors, trained: tuple[str, ...]) -> Tensors:
    if not vectors:
        return {}
    received = take_beside(restore_update(sent, model, trained))[1]
    return {name: _float32(received[name]) - _float32(vector) for name, vector in vectors.items()}


def _float32(values: Array) -> Vector:
    return np.asarray(values, np.float32)


def _understood(words: str) -> tuple[Compression, str]:
    """What is done, and why it is not what was asked."""
    try:
        return Compression.parse(words) if words else Compression(), ""
    except UnknownCompressionError as error:
        return Compression(), f"Sent in full: {error.message}"


def _residual(kept: bytes | None) -> Vector | None:
    """The vector in what was kept, or nothing where it is not one: a lost residual only slows learning down."""
    try:
        found = None if kept is None else decode(kept).get(RESIDUAL)
    except MalformedTensorsError:
        return None
    return None if found is None or found.dtype != np.float32 or found.ndim != 1 else np.asarray(found, np.float32)
