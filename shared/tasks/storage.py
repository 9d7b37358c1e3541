"""A device's data as a folder: one safetensors file and its checksum, and never a pickle.

    data.safetensors    train.* and held_out.*: inputs, labels, units
    data.sha256         SHA-256 of that file

The file is written beside and renamed, the checksum last: a folder with both is whole.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shared.files import write_atomically
from shared.tasks.errors import TaskDataError
from shared.tasks.task import DeviceData, Examples
from shared.tensors import MalformedTensorsError, Tensors, decode, encode

DATA_FILE = "data.safetensors"
CHECKSUM_FILE = "data.sha256"
_DTYPES = {"inputs": np.float32, "labels": np.int64, "units": np.int64}


def write_device_folder(data_dir: Path, data: DeviceData) -> None:
    """Writes the folder, replacing what it held."""
    payload = encode({**_tensors("train", data.train), **_tensors("held_out", data.held_out)})
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / CHECKSUM_FILE).unlink(missing_ok=True)
    write_atomically(data_dir / DATA_FILE, payload)
    write_atomically(data_dir / CHECKSUM_FILE, (hashlib.sha256(payload).hexdigest() + "\n").encode())


def read_device_folder(data_dir: Path, *, input_shape: tuple[int, ...], classes: int) -> DeviceData:
    """What the folder holds, checked. Raises TaskDataError where it is missing, damaged or for another task."""
    payload = _read_checked(data_dir)
    try:
        tensors = decode(payload)
    except MalformedTensorsError as error:
        raise TaskDataError(f"Expected a safetensors file at {data_dir / DATA_FILE}: {error.message}") from error
    train = _examples("train", tensors, input_shape=input_shape, classes=classes)
    held_out = _examples("held_out", tensors, input_shape=input_shape, classes=classes)
    return device_data(train=train, held_out=held_out)


def device_data(*, train: Examples, held_out: Examples) -> DeviceData:
    """Data with its id: the SHA-256 of the training part alone, whatever is held out beside it.

    Raises TaskDataError where a unit is both trained on and held out.
    """
    shared_units = np.intersect1d(train.units, held_out.units)
    if len(shared_units):
        raise TaskDataError(f"Expected no unit both trained on and held out, got unit {int(shared_units[0])} in both")
    return DeviceData(dataset_id=content_digest(_tensors("train", train)), train=train, held_out=held_out)


def merge(parts: Iterable[DeviceData]) -> DeviceData:
    """The data of several slices as one device's; their unit numbers must already differ."""
    slices = list(parts)
    if not slices:
        raise TaskDataError("Expected at least one slice of data, got none")
    train = concatenate([part.train for part in slices])
    held_out = concatenate([part.held_out for part in slices])
    return device_data(train=train, held_out=held_out)


def concatenate(parts: list[Examples]) -> Examples:
    """The examples of all parts, in order."""
    return Examples(
        inputs=np.concatenate([part.inputs for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        units=np.concatenate([part.units for part in parts]),
    )


def content_digest(tensors: Tensors) -> str:
    """SHA-256 of names, types, shapes and values: the same whatever version of safetensors wrote them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read_checked(data_dir: Path) -> bytes:
    try:
        payload = (data_dir / DATA_FILE).read_bytes()
        expected = (data_dir / CHECKSUM_FILE).read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise TaskDataError(
            f"Expected {DATA_FILE} and {CHECKSUM_FILE} in {data_dir}, got {error.strerror}: {error.filename}",
            hint="Write them with `fleetlearn task data TASK --out DIR`, or with the task's write_device_data.",
        ) from error
    if (actual := hashlib.sha256(payload).hexdigest()) != expected:
        raise TaskDataError(
            f"Expected SHA-256 {expected[:64]!r} of {data_dir / DATA_FILE}, got {actual!r}",
            hint="The data is damaged or half written: write it again.",
        )
    return payload


def _tensors(part: str, examples: Examples) -> Tensors:
    return {f"{part}.{field}": np.asarray(getattr(examples, field), dtype) for field, dtype in _DTYPES.items()}


def _examples(part: str, tensors: Tensors, *, input_shape: tuple[int, ...], classes: int) -> Examples:
    fields = {field: tensors.get(f"{part}.{field}") for field in _DTYPES}
    count = len(labels) if (labels := fields["labels"]) is not None and labels.ndim == 1 else 0
    shapes = {"inputs": (count, *input_shape), "labels": (count,), "units": (count,)}
    for field, dtype in _DTYPES.items():
        array = fields[field]
        if array is None or array.dtype != dtype or array.shape != shapes[field]:
            got = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise TaskDataError(f"Expected {part}.{field} as {np.dtype(dtype)} {shapes[field]}, got {got}")
    examples = Examples(**{field: np.asarray(fields[field], dtype) for field, dtype in _DTYPES.items()})
    if not np.isfinite(examples.inputs).all():
        raise TaskDataError(f"Expected finite numbers in {part}.inputs, got NaN or infinity")
    if count and (examples.labels.min() < 0 or examples.labels.max() >= classes):
        got = f"{int(examples.labels.min())} to {int(examples.labels.max())}"
        raise TaskDataError(f"Expected {part}.labels from 0 to {classes - 1}, got {got}")
    return examples
