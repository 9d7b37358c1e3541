"""How values read: examples for people, laws for all values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import formats

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("then", "expected"),
    [(None, "never"), (1000.4, "now"), (1003.0, "now"), (997, "3 s ago"), (700, "5 min ago"), (-9000, "2 h ago")],
)
def test_a_time_reads_as_its_age(then: float | None, expected: str) -> None:
    assert formats.ago(then, now=1000) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.85, "850 ms"), (3.21, "3.2 s"), (42, "42 s"), (80, "1 min 20 s"), (7500, "2 h 5 min"), (-1, "0 ms")],
)
def test_a_duration_has_the_digits_that_matter(seconds: float, expected: str) -> None:
    assert formats.duration(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (999, "999 B"), (12_300, "12.3 kB"), (105e6, "105 MB"), (999_950, "1.0 MB")]
)
def test_bytes_have_si_units(count: float, expected: str) -> None:
    assert formats.size(count) == expected


def test_uuids_are_told_apart_by_their_end() -> None:
    first, second = "0197c2a0-0000-7000-8000-0000a41b9c02", "0197c2a0-0000-7000-8000-0000e7d30f51"
    assert formats.short(first) == "…a41b9c02" != formats.short(second)


@given(st.floats(), st.integers(1, 60))
def test_a_bar_is_exactly_as_wide_as_asked(fraction: float, width: int) -> None:
    assert len(formats.bar(fraction, width=width)) == width


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_never_draws_a_shorter_bar(one: float, other: float) -> None:
    less, more = sorted((one, other))
    blocks = " ▏▎▍▌▋▊▉█"
    filled = [sum(blocks.index(letter) for letter in formats.bar(share, width=10)) for share in (less, more)]
    assert filled[0] <= filled[1]


@given(st.lists(st.floats(), max_size=40), st.integers(1, 20))
def test_a_sparkline_has_one_letter_for_each_of_the_last_values(values: list[float], width: int) -> None:
    assert len(formats.sparkline(values, width=width)) == min(len(values), width)


@given(st.text(max_size=200))
def test_printable_text_cannot_steer_a_terminal(text: str) -> None:
    assert all(ord(letter) >= 32 and not 127 <= ord(letter) < 160 for letter in formats.printable(text))


def test_an_escape_sequence_loses_its_escape() -> None:
    assert formats.printable("ok\x1b[2J\x07\nnext‮") == "ok[2J next"


@given(st.text(alphabet="abcdef0123456789-", min_size=1, max_size=60), st.integers(3, 40))
def test_a_shortened_name_fits(name: str, width: int) -> None:
    assert len(formats.short(name, width=width)) <= max(width, 9)
