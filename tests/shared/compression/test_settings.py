import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.compression.errors import UnknownCompressionError
from shared.compression.settings import Compression, Number, Travels
from tests.shared.compression.cases import ALL

compressions = st.builds(
    lambda travels, fraction, rank, number, feedback: Compression(
        travels=travels,
        fraction=fraction if travels in (Travels.TOP_K, Travels.RANDOM_K) else None,
        rank=rank if travels is Travels.LOW_RANK else None,
        number=number,
        feedback=feedback,
    ),
    st.sampled_from(Travels),
    st.floats(0, 1, exclude_min=True),
    st.integers(1, 1024),
    st.sampled_from(Number),
    st.sampled_from([None, True, False]),
)


@given(compressions)
def test_what_is_said_in_words_is_read_back(compression: Compression) -> None:
    assert Compression.parse(str(compression)) == compression
    assert Compression.model_validate_json(compression.model_dump_json()) == compression


@given(compressions)
def test_a_wire_name_needs_no_feedback_to_be_read(compression: Compression) -> None:
    read = Compression.parse(compression.wire_name)
    assert read.wire_name == compression.wire_name
    assert read == compression.model_copy(update={"feedback": None})


def test_parts_come_in_any_order_and_a_file_may_use_words_for_the_fields() -> None:
    expected = Compression(travels=Travels.TOP_K, fraction=0.01, number=Number.INT8)
    assert Compression.parse("int8 + top-k=1e-2") == expected
    assert Compression.model_validate(json.loads('"top-k=0.01+int8"')) == expected


def test_feedback_is_on_where_something_does_not_travel() -> None:
    assert [one.has_feedback for one in map(Compression.parse, ("int8", "top-k=0.1", "low-rank=2"))] == [
        False,
        True,
        True,
    ]
    assert not Compression.parse("top-k=0.1+no-feedback").has_feedback
    assert Compression.parse("int4+feedback").has_feedback


@pytest.mark.parametrize(
    "words",
    [
        "",
        "zip",
        "int8+int4",
        "top-k",
        "top-k=0",
        "top-k=2",
        "top-k=nan",
        "top-k=x",
        "int8=3",
        "low-rank=0.5",
        "low-rank=0",
        "low-rank=2+top-k=0.1",
        "feedback=1",
        "int8+" * 40,
    ],
)
def test_refuses_words_that_name_nothing(words: str) -> None:
    with pytest.raises(UnknownCompressionError, match="Expected a compression, got"):
        Compression.parse(words)


def test_the_cases_are_all_different() -> None:
    assert len({str(one) for one in ALL}) == len(ALL)
