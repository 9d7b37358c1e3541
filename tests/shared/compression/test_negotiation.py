"""What a device is asked for: what was wanted, or what comes nearest and loses no more."""

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.compression.negotiation import CODECS, agreed, unknown_codecs
from shared.compression.settings import Compression, Number

EXACTNESS = [Number.INT4, Number.INT8, Number.FLOAT16, Number.FLOAT32]
WANTED = (
    *("", "int4", "int8", "float16", "top-k=0.01+int4", "top-k=0.01+int8+no-feedback"),
    *("random-k=0.1", "low-rank=4+int8"),
)
EVERY_SUBSET = [
    set(some) for some in chain.from_iterable(combinations(CODECS, size) for size in range(len(CODECS) + 1))
]


@pytest.mark.parametrize("words", WANTED)
def test_a_device_that_knows_all_or_says_nothing_is_asked_for_what_was_wanted(words: str) -> None:
    assert agreed(words, CODECS) == agreed(words, ()) == words


@pytest.mark.parametrize(
    ("words", "known", "expected"),
    [
        ("int4", ("all", "int8", "float32"), "int8"),
        ("int8", ("all", "int4", "float32"), ""),
        ("top-k=0.01+int4", ("all", "top-k", "float16"), "top-k=0.01+float16"),
        ("top-k=0.01+int8", ("all", "int8", "float32"), "int8"),
        ("low-rank=4", ("all", "int8", "float32"), ""),
        ("top-k=0.01+int8", ("what", "is", "this"), ""),
    ],
)
def test_what_comes_nearest(words: str, known: tuple[str, ...], expected: str) -> None:
    assert agreed(words, known) == expected


@given(st.sampled_from(WANTED[1:]), st.sampled_from(EVERY_SUBSET[1:]))
def test_whatever_a_device_knows_it_is_asked_for_nothing_else_and_no_more_is_lost(words: str, known: set[str]) -> None:
    found, wanted = agreed(words, known), Compression.parse(words)
    if found == "":
        return  # in full
    chosen = Compression.parse(found)
    assert set(unknown_codecs(found, known)) <= {"all", "float32"}  # what every agent can
    assert chosen.travels in {wanted.travels, Compression().travels}
    assert EXACTNESS.index(chosen.number) >= EXACTNESS.index(wanted.number)
