"""Flower's `RecordDict` as bytes and back, every record in its order: safetensors, with JSON in its header.

    the arrays' bytes, as Flower has them, are tensors of uint8 named "record.array" by their numbers
    the header's `records` is a list of [name, kind, entries]
        arrays            [key, dtype, shape, stype]
        metrics, config   [key, value]; bytes are {"base64": text}

Equal records are equal bytes, so that one message to many devices is one object. Lossless: what an app sends is what an
app gets. Nothing here is pickled or run.
"""

import base64
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.errors import FleetlearnError
from shared.tensors import Tensors

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, RecordDict

ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"
_HEADER = "records"


class MalformedRecordsError(FleetlearnError):
    """Bytes that are not a Flower app's records."""

    code = "malformed_records"


def encode_records(records: "RecordDict") -> bytes:
    """The records as one safetensors file."""
    # Flower costs a second and 100 MB; only who runs apps has it.
    from flwr.app import ArrayRecord, ConfigRecord
    from safetensors.numpy import save

    tensors: Tensors = {}
    header: list[list[Any]] = []  # Any: JSON
    for number, (name, record) in enumerate(records.items()):
        if isinstance(record, ArrayRecord):
            header.append([name, ARRAYS, _array_entries(record)])
            datas = [array.data for array in record.values()]
            tensors |= {f"{number}.{place}": np.frombuffer(data, np.uint8) for place, data in enumerate(datas)}
        else:
            kind = CONFIG if isinstance(record, ConfigRecord) else METRICS
            header.append([name, kind, [[key, _as_json(value)] for key, value in record.items()]])
    return save(tensors, metadata={_HEADER: json.dumps(header, separators=(",", ":"))})


def decode_records(payload: bytes) -> "RecordDict":
    """The records in these bytes. Raises MalformedRecordsError, never anything else."""
    from flwr.app import RecordDict
    from safetensors import SafetensorError, deserialize

    try:
        tensors = {name: bytes(info["data"]) for name, info in deserialize(payload)}  # type: ignore[no-untyped-call]  # compiled
        found = [_record(number, entry, tensors) for number, entry in enumerate(_header(payload))]
        return RecordDict(dict(found))
    except (SafetensorError, KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise MalformedRecordsError(
            f"Expected the records of a Flower app, got {len(payload)} other bytes: {error}"
        ) from error


def first_difference(before: bytes, now: bytes) -> str:
    """The first entry that differs between two records, in words; nothing where none does, or one is malformed."""
    try:
        old, new = decode_records(before), decode_records(now)
    except MalformedRecordsError:
        return ""
    for name in dict.fromkeys([*old, *new]):
        if name not in old or name not in new:
            return f"the record {name!r}"
        for key in dict.fromkeys([*old[name], *new[name]]):
            if key not in old[name] or key not in new[name] or old[name][key] != new[name][key]:
                return f"{key!r} of the record {name!r}"
    return ""


def _array_entries(record: "ArrayRecord") -> list[list[Any]]:  # Any: JSON
    return [[key, array.dtype, list(array.shape), array.stype] for key, array in record.items()]


def _header(payload: bytes) -> Iterable[Any]:  # Any: JSON
    """Of the safetensors format: 8 bytes length of the JSON header, little-endian, then the header."""
    length = int.from_bytes(payload[:8], "little")
    metadata = json.loads(payload[8 : 8 + length])["__metadata__"]
    entries: list[Any] = json.loads(metadata[_HEADER])
    return entries


def _record(number: int, entry: Any, tensors: dict[str, bytes]) -> tuple[str, Any]:  # Any: JSON in, a Flower record out
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

    name, kind, entries = entry
    if kind == ARRAYS:
        arrays = {
            key: Array(dtype=dtype, shape=tuple(shape), stype=stype, data=tensors[f"{number}.{place}"])
            for place, (key, dtype, shape, stype) in enumerate(entries)
        }
        return name, ArrayRecord(arrays)
    values = {key: _from_json(value) for key, value in entries}
    return name, {METRICS: MetricRecord, CONFIG: ConfigRecord}[kind](values)


def _as_json(value: Any) -> Any:  # Any: a value of a Flower record in, JSON out
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return [_as_json(each) for each in value] if isinstance(value, list) else value


def _from_json(value: Any) -> Any:  # Any: the same the other way round
    if isinstance(value, dict):
        return base64.b64decode(value["base64"], validate=True)
    return [_from_json(each) for each in value] if isinstance(value, list) else value
