import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.compression.errors import MalformedPayloadError
from shared.compression.exact_delta import MAGIC, delta_between, rebuilt
from shared.tensors import encode


def neighbours(*, trained: int, frozen: int) -> tuple[bytes, bytes]:
    """Two rounds' models."""
    random = np.random.default_rng(2)
    before = {
        "w": random.normal(size=trained).astype(np.float32) * np.float32(0.1),
        "frozen": random.normal(size=frozen).astype(np.float32),
    }
    step = random.normal(size=trained).astype(np.float32) * np.float32(0.001)
    return encode(before), encode({**before, "w": before["w"] + step})


@given(st.integers(0, 50), st.data())
def test_any_bytes_are_rebuilt_exactly(length: int, data: st.DataObject) -> None:
    base, target = (data.draw(st.binary(min_size=length, max_size=length)) for _ in range(2))
    delta = delta_between(base, target)
    assert delta is not None
    assert rebuilt(base, delta) == target


def test_files_of_different_lengths_have_no_delta() -> None:
    assert delta_between(b"12345678", b"1234") is None


def test_a_neighbouring_round_is_smaller_and_what_was_not_trained_is_free() -> None:
    base, target = neighbours(trained=20_000, frozen=0)
    delta = delta_between(base, target)
    assert delta is not None
    assert len(delta) < len(target) / 1.3
    base, target = neighbours(trained=1_000, frozen=50_000)
    delta = delta_between(base, target)
    assert delta is not None
    assert len(delta) < len(target) / 30
    assert rebuilt(base, delta) == target


@given(st.data())
def test_a_damaged_delta_is_refused_or_rebuilds_other_bytes_of_the_same_length(data: st.DataObject) -> None:
    base, target = neighbours(trained=50, frozen=5)
    made = delta_between(base, target)
    assert made is not None
    delta = bytearray(made)
    at = data.draw(st.integers(0, len(delta) - 1))
    if data.draw(st.booleans()):
        delta[at] ^= data.draw(st.integers(1, 255))
    else:
        del delta[at : at + data.draw(st.integers(1, 30))]
    try:
        assert len(rebuilt(base, bytes(delta))) == len(base)
    except MalformedPayloadError:
        return


def test_a_plane_that_inflates_without_end_is_refused() -> None:
    import zlib

    base = bytes(4_000)
    bomb = zlib.compress(bytes(50_000_000))
    delta = MAGIC + struct.pack("<Q", len(base)) + struct.pack("<BQ", 1, len(bomb)) + bomb
    with pytest.raises(MalformedPayloadError, match="a plane of 1000 bytes"):
        rebuilt(base, delta)


@pytest.mark.parametrize("delta", [b"", MAGIC, b"FLD\x02" + bytes(8), MAGIC + struct.pack("<Q", 9)])
def test_refuses_what_is_no_delta_to_this_base(delta: bytes) -> None:
    with pytest.raises(MalformedPayloadError, match="Expected a delta"):
        rebuilt(bytes(8), delta)
