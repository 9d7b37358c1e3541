"""A round's update, compressed: what differs from the model that was sent, as a payload inside a safetensors file.

The trained tensors become one vector, by sorted name, and travel as the tensor `compressed/update` of bytes. Vectors
beside the update (a strategy's own) travel whole, in the same kind of numbers. Whoever reads it knows the model, and
gets the update as if it had been sent in full; an update that was is read unchanged.

Import it where torch may be imported.
"""

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.compression import wire
from shared.compression.codec import Codec, decode, sent_values
from shared.compression.error_feedback import encode_with_feedback
from shared.compression.errors import MalformedPayloadError
from shared.compression.settings import Compression
from shared.layout import Layout
from shared.tensors import Array, Tensors

Vector = NDArray[np.float32]
PREFIX = "compressed/"
UPDATE = PREFIX + "update"


@dataclass(frozen=True)
class CompressedUpdate:
    """What is sent, and what is kept."""

    tensors: Tensors
    """Bytes, each payload a tensor."""
    residual: Vector | None
    """What did not travel, for the next update; None without error feedback."""


def compress_update(
    update: Tensors,
    model: Tensors,
    compression: Compression,
    *,
    residual: Vector | None,
    seed: int,
    mask: int | None = None,
    beside: Mapping[str, Array] | None = None,
) -> CompressedUpdate:
    """The update in fewer bytes.

    Args:
        update: New values of trained tensors, fit for the model.
        model: As it was sent.
        compression: What is asked for.
        residual: What was kept of the update before, by the same compression's feedback; None or another length is
            nothing.
        seed: Fresh for each update.
        mask: Seed of the positions that a whole cohort sends (`random-k` under secure aggregation).
        beside: Vectors that travel with it, by their full names in the file.

    Raises:
        UnencodableError: NaN or infinity.
    """
    import torch

    layout = layout_of(model, update)
    delta = torch.from_numpy(layout.flatten(update) - layout.flatten(model))
    codec = Codec(compression, layout)
    if compression.has_feedback:
        before = np.zeros(layout.size, np.float32) if residual is None or residual.shape != delta.shape else residual
        payload, kept = encode_with_feedback(codec, delta, torch.from_numpy(before), seed=seed, mask=mask)
        after: Vector | None = kept.numpy()
    else:
        payload, after = codec.encode(delta, seed=seed, mask=mask), None
    whole = Compression(number=compression.number)
    others = {
        PREFIX + name: _vector_payload(vector, whole, seed=_own(seed, name)) for name, vector in (beside or {}).items()
    }
    return CompressedUpdate({UPDATE: _as_tensor(payload), **others}, after)


def restore_update(tensors: Tensors, model: Tensors, trained: Collection[str]) -> Tensors:
    """The file's tensors with the update's new values in place of payloads; without payloads, as they are.

    Args:
        tensors: Of the file.
        model: As it was sent.
        trained: Names of the tensors that rounds train.

    Raises:
        MalformedPayloadError: A payload that is not one of this model's.
    """
    payloads = {name: value for name, value in tensors.items() if name.startswith(PREFIX)}
    if not payloads:
        return tensors
    layout = layout_of(model, trained)
    flat = _flat(layout.size)
    restored = {name: value for name, value in tensors.items() if name not in payloads}
    for name, value in payloads.items():
        if name == UPDATE:
            restored |= _moved(model, layout, decode(_payload(name, value), layout).numpy())
        else:
            restored[name.removeprefix(PREFIX)] = decode(_payload(name, value), flat).numpy()
    return restored


def travelling_values(update: Tensors, model: Tensors) -> Vector:
    """What an update of one's own changed, by sorted name, `(parameters,)`; of a sparse one, what travels, `(k,)`."""
    if UPDATE not in update:
        layout = layout_of(model, update)
        return layout.flatten(update) - layout.flatten(model)
    payload = _payload(UPDATE, update[UPDATE])
    values: Vector = sent_values(payload, _flat(wire.split(payload)[1])).numpy()
    return values


def compression_of(tensors: Tensors) -> str:
    """The compression that a file's update names, in words; nothing for one in full. Raises MalformedPayloadError."""
    return wire.split(_payload(UPDATE, tensors[UPDATE]))[0] if UPDATE in tensors else ""


def layout_of(model: Tensors, trained: Collection[str]) -> Layout:
    """Of the trained tensors by sorted name: both ends know it, in whatever order their tensors are."""
    if unknown := sorted(set(trained) - model.keys()):
        raise MalformedPayloadError(f"Expected trained tensors of the model, got {unknown[0][:80]!r}")
    return Layout.of({name: model[name] for name in sorted(trained)})


def _moved(model: Tensors, layout: Layout, delta: Vector) -> Tensors:
    """The model's tensors plus the delta, in their own types."""
    with np.errstate(over="ignore"):  # what is not finite is found and said by whoever checks the update
        moved = layout.split(layout.flatten(model) + delta)
    return {name: value.astype(model[name].dtype) for name, value in moved.items()}


def _vector_payload(vector: Array, whole: Compression, *, seed: int) -> Array:
    import torch

    codec = Codec(whole, _flat(vector.size))
    return _as_tensor(codec.encode(torch.from_numpy(np.asarray(vector, np.float32).reshape(-1)), seed=seed))


def _flat(size: int) -> Layout:
    return Layout(("vector",), ((size,),))


def _own(seed: int, name: str) -> int:
    """Each vector's own draws."""
    return seed ^ (zlib.crc32(name.encode()) << 32)


def _as_tensor(payload: bytes) -> Array:
    return np.frombuffer(payload, np.uint8)


def _payload(name: str, value: Array) -> bytes:
    if value.dtype != np.uint8 or value.ndim != 1:
        raise MalformedPayloadError(f"Expected {name[:80]!r} as a row of bytes, got {value.dtype} {value.shape}")
    return value.tobytes()
