"""AMQP's types: what was written is read again, and no bytes of a stranger do more than raise AmqpError."""

import math
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub.amqp.types import (
    Array,
    Byte,
    Described,
    Int,
    Reader,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
    Value,
    encode,
)
from cloud.localhub.errors import AmqpError

_SIMPLE: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 255).map(Ubyte),
    st.integers(0, 2**16 - 1).map(Ushort),
    st.integers(0, 2**32 - 1).map(Uint),
    st.integers(0, 2**64 - 1).map(Ulong),
    st.integers(-128, 127).map(Byte),
    st.integers(-(2**15), 2**15 - 1).map(Short),
    st.integers(-(2**31), 2**31 - 1).map(Int),
    st.integers(-(2**63), 2**63 - 1).map(Timestamp),
    st.floats(allow_nan=False),
    st.text(max_size=400),
    st.text(st.characters(max_codepoint=127), max_size=300).map(Symbol),
    st.binary(max_size=400),
    st.uuids(),
    st.lists(st.text(max_size=20), max_size=5).map(lambda texts: Array(tuple(texts))),
)
_VALUES = st.recursive(
    _SIMPLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=9), inner, max_size=4),
        st.builds(Described, st.integers(0, 255).map(Ulong), inner),
    ),
    max_leaves=12,
)


@given(_VALUES)
def test_what_was_written_is_read_again(value: Value) -> None:
    reader = Reader(encode(value))
    read = reader.value()
    assert (read, type(read), reader.left) == (value, type(value), 0)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_value_or_an_error(data: bytes) -> None:
    try:
        Reader(data).value()
    except AmqpError:
        return


@given(_VALUES, st.data())
def test_a_value_cut_short_is_an_error(value: Value, data: st.DataObject) -> None:
    whole = encode(value)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(AmqpError):
        Reader(whole[:end]).value()


def test_the_compact_forms_of_the_standard_are_read() -> None:
    compact = [
        b"\x43",
        b"\x44",
        b"\x45",
        b"\x52\x07",
        b"\x53\x07",
        b"\x54\xff",
        b"\x55\xff",
        b"\x56\x01",
        b"\xc0\x01\x00",
    ]
    assert [Reader(data).value() for data in compact] == [0, 0, [], 7, 7, -1, -1, True, []]
    assert math.isclose(float(str(Reader(b"\x72" + struct.pack("!f", 1.5)).value())), 1.5)
    assert Reader(b"\x98" + bytes(16)).value() == uuid.UUID(int=0)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40",
        b"\xd0\x00\x00\x00\x04\xff\xff\xff\xff",
        b"\x00" * 60,
        b"\xc0\x02\x01" * 40 + b"\x40",
        b"\xd1\x00\x00\x00\x06\x00\x00\x00\x02\x45\x40",
    ],
    ids=["array of nothing", "list of nothing", "descriptors without end", "deep lists", "a list as a key"],
)
def test_a_small_text_never_becomes_a_large_value(bomb: bytes) -> None:
    with pytest.raises(AmqpError):
        Reader(bomb).value()
