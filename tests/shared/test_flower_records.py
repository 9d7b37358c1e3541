"""A Flower app's records survive the way: every name, type, order and bit."""

import contextlib
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shared.flower_records import MalformedRecordsError, decode_records, encode_records, first_difference

NAMES = st.text(max_size=8)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
SCALARS = NUMBERS | st.booleans() | st.text(max_size=8) | st.binary(max_size=8)


def _lists(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*(st.lists(kind, max_size=3) for kind in kinds))


ARRAYS = st.builds(
    lambda shape, dtype, seed: Array(np.asarray(np.random.default_rng(seed).integers(0, 9, shape)).astype(dtype)),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(["float32", "float64", "uint8", "int64", "bool", "float16", "complex64"]),
    st.integers(0, 9),
) | st.builds(lambda data: Array("", (), "xgboost.json", data), st.binary(max_size=16))
RECORDS = (
    st.dictionaries(NAMES, ARRAYS, max_size=3).map(ArrayRecord)
    | st.dictionaries(NAMES, NUMBERS | _lists(st.integers(0, 9), st.floats(0, 1)), max_size=3).map(MetricRecord)
    | st.dictionaries(
        NAMES, SCALARS | _lists(st.integers(0, 9), st.text(max_size=3), st.binary(max_size=3)), max_size=3
    ).map(ConfigRecord)
)


@given(st.dictionaries(NAMES, RECORDS, max_size=4))
def test_records_come_back_as_they_were_and_equal_ones_are_equal_bytes(records: dict[str, Any]) -> None:
    sent = RecordDict(records)
    payload = encode_records(sent)
    came = decode_records(payload)

    assert list(came.items()) == list(sent.items())
    for name, record in came.items():
        assert type(record) is type(sent[name])
        assert [(key, type(value)) for key, value in record.items()] == [
            (key, type(value)) for key, value in sent[name].items()
        ]
    assert encode_records(came) == payload


@given(st.binary(max_size=200))
def test_junk_is_told_from_records(payload: bytes) -> None:
    with pytest.raises(MalformedRecordsError):
        decode_records(payload)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_byte_raises_nothing_else(place: int, value: int) -> None:
    records = RecordDict({"a": ArrayRecord([np.arange(3.0)]), "c": ConfigRecord({"k": [b"x"]})})
    payload = bytearray(encode_records(records))
    payload[place % len(payload)] = value
    with contextlib.suppress(MalformedRecordsError):
        decode_records(bytes(payload))


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        ({"config": ConfigRecord({"lr": 0.1})}, ""),
        ({"config": ConfigRecord({"lr": 0.2})}, "'lr' of the record 'config'"),
        ({"config": ConfigRecord({"lr": 0.1, "now": 1})}, "'now' of the record 'config'"),
        ({"config": ConfigRecord({"lr": 0.1}), "more": MetricRecord()}, "the record 'more'"),
    ],
)
def test_the_first_difference_is_named(now: dict[str, ConfigRecord | MetricRecord], difference: str) -> None:
    before = encode_records(RecordDict({"config": ConfigRecord({"lr": 0.1})}))
    assert first_difference(before, encode_records(RecordDict({**now}))) == difference
    assert first_difference(before, b"junk") == ""
