"""Compressed updates that were ever on the wire decode as they did, and are written as they were.

The files are never edited; a change that breaks one needs a new version in `shared.compression.wire.MAGIC`.
"""

from pathlib import Path

import pytest
import torch

from shared.compression.codec import Codec, decode
from shared.compression.settings import Compression, Travels
from shared.tensors import decode as decode_tensors
from tests.shared.compression.cases import LAYOUT, WORDS, updates

HERE = Path(__file__).parent / "compression" / "v1"


@pytest.mark.parametrize("words", WORDS)
def test_an_old_payload_decodes_as_it_did(words: str) -> None:
    expected = torch.from_numpy(decode_tensors((HERE / "decoded.safetensors").read_bytes())[words])
    found = decode((HERE / f"{words}.bin").read_bytes(), LAYOUT)
    # Factors are multiplied by a library whose sums may change their order; all else is exact.
    assert torch.allclose(found, expected, rtol=1e-5 if "low-rank" in words else 0, atol=0)


@pytest.mark.parametrize(
    "words", [words for words in WORDS if Compression.parse(words).travels is not Travels.LOW_RANK]
)
def test_an_old_payload_is_written_as_it_was(words: str) -> None:
    update = updates(3)[2]
    assert Codec(Compression.parse(words), LAYOUT).encode(update, seed=2026) == (HERE / f"{words}.bin").read_bytes()
    assert torch.equal(update, torch.from_numpy(decode_tensors((HERE / "decoded.safetensors").read_bytes())["float32"]))
