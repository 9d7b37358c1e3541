"""Bytes from outside: whatever they are, they are an update of the right size or refused with a reason."""

import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.compression import positions
from shared.compression.codec import Codec, decode
from shared.compression.errors import MalformedPayloadError
from shared.compression.settings import Compression
from shared.compression.wire import MAGIC, head
from shared.layout import Layout
from tests.shared.compression.cases import ALL, LAYOUT, updates

PAYLOADS = {str(one): Codec(one, LAYOUT).encode(updates(1)[0], seed=5) for one in ALL}


@settings(max_examples=200)
@given(st.sampled_from(sorted(PAYLOADS)), st.data())
def test_a_damaged_payload_is_refused_or_still_an_update(name: str, data: st.DataObject) -> None:
    payload = bytearray(PAYLOADS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                payload[at] = data.draw(st.integers(0, 255))
            case "cut":
                del payload[at : at + data.draw(st.integers(1, 40))]
            case _:
                payload[at:at] = data.draw(st.binary(min_size=1, max_size=40))
        if not payload:
            break
    assert_update_or_refused(bytes(payload))


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([b"", MAGIC, *(head(str(one), parameters=LAYOUT.size) for one in ALL)]))
def test_any_bytes_are_refused_or_an_update(content: bytes, beginning: bytes) -> None:
    assert_update_or_refused(beginning + content)


def assert_update_or_refused(payload: bytes) -> None:
    try:
        delta = decode(payload, LAYOUT)
    except MalformedPayloadError:
        return
    assert delta.shape == (LAYOUT.size,)
    assert delta.isfinite().all()


@given(st.data())
def test_positions_survive_and_damaged_ones_stay_in_range(data: st.DataObject) -> None:
    parameters = data.draw(st.integers(1, 3000))
    chosen = data.draw(st.sets(st.integers(0, parameters - 1), min_size=1, max_size=200))
    found = torch.tensor(sorted(chosen)).numpy()
    packed = positions.pack(found, parameters=parameters)
    assert len(packed) == positions.size_bytes(len(found), parameters=parameters)
    assert (positions.unpack(memoryview(packed), count=len(found), parameters=parameters) == found).all()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "got nothing"),
        (b"FLC\x02" + PAYLOADS["int8"][4:], "payload of version 1, got 464c4302"),
        (MAGIC + b"\x05int8", "a compression's name"),
        (head("int8", parameters=10**15), f"an update of {LAYOUT.size} numbers, got one of {10**15}"),
        (head("low-rank=1000", parameters=LAYOUT.size), "bytes of low-rank=1000, got 0"),
        (head("int8+float16", parameters=LAYOUT.size), "says again"),
        (head("top-k=1e-2", parameters=LAYOUT.size), "the compression as 'top-k=0.01', got"),
        (PAYLOADS["int8"] + b"\x00", "bytes of int8, got"),
        (PAYLOADS["float32"][:-4] + b"\x00\x00\xc0\x7f", "got NaN or infinity"),
    ],
    ids=lambda part: part if isinstance(part, str) else f"{len(part)}-bytes",
)
def test_a_lying_payload_is_refused_with_the_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(MalformedPayloadError, match=reason):
        decode(payload, LAYOUT)


def test_a_payload_cannot_ask_for_memory() -> None:
    """Whatever it claims: what is allocated follows from the receiver's own layout."""
    layout = Layout(("w",), ((1000, 1000),))
    claims = ["top-k=1.0", "low-rank=1024", "random-k=1.0+int4", "int4"]
    tracemalloc.start()
    for name in claims:
        with pytest.raises(MalformedPayloadError):
            decode(head(name, parameters=layout.size) + bytes(100), layout)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_payload_of_another_codec_of_the_same_layout_is_read_by_its_own_name() -> None:
    for one, payload in zip(ALL, PAYLOADS.values(), strict=True):
        assert torch.equal(
            decode(payload, LAYOUT),
            Codec(Compression.parse(one.wire_name), LAYOUT).receive(
                Codec(one, LAYOUT).from_bytes(memoryview(payload)[len(head(one.wire_name, parameters=0)) :])
            )[0],
        )
