"""The coordinator's absence is told once, and its return once."""

from hypothesis import given
from hypothesis import strategies as st

from fleet.link import Link, after_answer, after_miss, badge


@given(st.lists(st.booleans(), max_size=40))
def test_each_absence_is_told_once_and_each_return_once(answers: list[bool]) -> None:
    link, told = Link(), 0
    for now, answered in enumerate(answers):
        link, text = after_answer(link, now=now) if answered else after_miss(link, "refused", now=now)
        told += bool(text)
    with_start = [True, *answers]
    changes = sum(before != after for before, after in zip(with_start, answers, strict=False))
    assert told == changes


def test_while_away_the_age_of_what_is_shown_is_said() -> None:
    link, _ = after_answer(Link(), now=100)
    link, _ = after_miss(link, "refused", now=110)
    assert badge(link, now=140).text == "✕ away for 30 s, showing 40 s ago"
    assert not link.is_up
