import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.compression.errors import MalformedPayloadError
from shared.compression.settings import Compression
from shared.compression.updates import UPDATE, compress_update, compression_of, layout_of, restore_update
from shared.tensors import Array, Tensors, decode, encode
from tests.shared.compression.cases import ALL


def floats(value: Array) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)


RANDOM = np.random.default_rng(5)
MODEL: Tensors = {
    "w": RANDOM.normal(size=(30, 20)).astype(np.float32),
    "frozen": RANDOM.normal(size=7).astype(np.float32),
    "b": RANDOM.normal(size=30).astype(np.float32),
}
TRAINED = ("w", "b")
UPDATE_IN_FULL: Tensors = {name: floats(MODEL[name]) * np.float32(1.01) for name in TRAINED}


@pytest.mark.parametrize("compression", ALL, ids=str)
def test_an_update_is_read_as_if_it_had_been_sent_in_full(compression: Compression) -> None:
    sent = compress_update(UPDATE_IN_FULL, MODEL, compression, residual=None, seed=1)
    received = decode(encode(sent.tensors))
    assert compression_of(received) == compression.wire_name
    restored = restore_update(received, MODEL, TRAINED)
    assert {name: (value.shape, value.dtype) for name, value in restored.items()} == {
        name: (MODEL[name].shape, MODEL[name].dtype) for name in TRAINED
    }
    layout = layout_of(MODEL, TRAINED)
    lost = layout.flatten(UPDATE_IN_FULL) - layout.flatten(restored)
    if sent.residual is not None:
        np.testing.assert_allclose(lost, sent.residual, atol=1e-6)
    if compression.is_lossless:
        np.testing.assert_allclose(lost, 0, atol=1e-6)


def test_an_update_in_full_is_read_unchanged() -> None:
    assert restore_update(UPDATE_IN_FULL, MODEL, TRAINED) is UPDATE_IN_FULL
    assert compression_of(UPDATE_IN_FULL) == ""


def test_vectors_beside_travel_whole() -> None:
    beside: dict[str, NDArray[np.float32]] = {"beside/control": np.linspace(-1, 1, 630, dtype=np.float32)}
    sent = compress_update(
        UPDATE_IN_FULL, MODEL, Compression.parse("top-k=0.01+int8"), residual=None, seed=1, beside=beside
    )
    restored = restore_update(sent.tensors, MODEL, TRAINED)
    np.testing.assert_allclose(floats(restored["beside/control"]), beside["beside/control"], atol=1 / 127)
    assert len(encode(sent.tensors)) < len(encode(UPDATE_IN_FULL)) / 2


def test_a_residual_is_added_and_one_of_another_model_is_not() -> None:
    everything = Compression.parse("top-k=1.0")
    size = layout_of(MODEL, TRAINED).size
    residual = np.full(size, 0.5, np.float32)
    plain, corrected, other = (
        restore_update(
            compress_update(UPDATE_IN_FULL, MODEL, everything, residual=kept, seed=1).tensors, MODEL, TRAINED
        )
        for kept in (None, residual, residual[1:])
    )
    np.testing.assert_allclose(floats(corrected["w"]) - floats(plain["w"]), 0.5, atol=1e-6)
    np.testing.assert_array_equal(other["w"], plain["w"])


@given(st.sampled_from([UPDATE, "compressed/beside/x", "compressed/"]), st.binary(max_size=200), st.sampled_from("uif"))
def test_a_file_of_any_bytes_is_refused_or_read(name: str, content: bytes, kind: str) -> None:
    dtype = {"u": np.uint8, "i": np.int8, "f": np.float16}[kind]
    value = np.frombuffer(content[: len(content) // 2 * 2], dtype)
    with pytest.raises(MalformedPayloadError, match="Expected"):
        restore_update({**MODEL, name: value}, MODEL, TRAINED)


def test_trained_tensors_must_be_the_models() -> None:
    with pytest.raises(MalformedPayloadError, match="got 'head'"):
        layout_of(MODEL, ["w", "head"])
