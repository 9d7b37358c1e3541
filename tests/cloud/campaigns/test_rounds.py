from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.campaigns.rounds import (
    ANSWERS,
    ROUND_TRANSITIONS,
    Answer,
    Reply,
    Round,
    RoundEvent,
    RoundState,
    ask,
    extend,
    finish,
    give_up,
    hear,
    hear_all,
    open_round,
    tick,
    why_abandoned,
)
from shared.ids import DeviceId
from shared.lifecycles import IllegalTransitionError

A, B, C = DeviceId("a"), DeviceId("b"), DeviceId("c")
SAID = (Reply.UPDATE, Reply.REFUSE, Reply.FAIL)


def _asked(*devices: DeviceId, quorum: int = 2) -> Round:
    return ask(open_round(1, attempt=1, quorum=quorum), devices or (A, B, C), deadline_at=100.0)


def test_every_answer_meets_every_reply() -> None:
    assert set(ANSWERS) == set(product(Answer, Reply))


def test_a_first_answer_stands_whatever_comes_after() -> None:
    for first, second in product(SAID, Reply):
        before = hear(_asked(), A, first)
        assert hear(before, A, second) is before


def test_the_table_of_rounds_ends_in_done_or_abandoned_and_leaves_neither() -> None:
    ends = {RoundState.DONE, RoundState.ABANDONED}
    assert {state for state, _ in ROUND_TRANSITIONS} == set(RoundState) - ends
    assert {after for _, after in ROUND_TRANSITIONS.items()} == set(RoundState) - {RoundState.SELECTING}


@pytest.mark.parametrize("state", list(RoundState))
@pytest.mark.parametrize("event", list(RoundEvent))
def test_an_event_without_a_row_is_refused(state: RoundState, event: RoundEvent) -> None:
    step = {RoundEvent.GIVE_UP: give_up, RoundEvent.FINISH: finish}.get(event)
    if step is None or (state, event) in ROUND_TRANSITIONS:
        return
    with pytest.raises(IllegalTransitionError):
        step(replace(_asked(), state=state))


def test_all_three_device_rounds_for_every_combination_of_replies_and_times() -> None:
    """Every device says nothing or one of three things, before or at the deadline: 128 rounds, each by the rule."""
    for said in product((None, *SAID), repeat=3):
        for now in (50.0, 100.0):
            current = _asked()
            for device, reply in zip((A, B, C), said, strict=True):
                current = hear(current, device, reply) if reply else current
            assert tick(current, now=now).state is _by_the_rule(said, is_over=now >= 100.0)


def _by_the_rule(said: tuple[Reply | None, ...], *, is_over: bool) -> RoundState:
    updates, silent = said.count(Reply.UPDATE), said.count(None)
    if updates + silent < 2:
        return RoundState.ABANDONED
    if silent and not is_over:
        return RoundState.WAITING
    return RoundState.AGGREGATING if updates >= 2 else RoundState.ABANDONED


def test_enough_updates_close_a_round_before_everybody_has_answered() -> None:
    one = hear(_asked(), A, Reply.UPDATE)
    assert tick(one, now=0.0, enough=1).state is RoundState.WAITING  # never below the quorum
    two = hear(one, B, Reply.UPDATE)
    assert tick(two, now=0.0).state is RoundState.WAITING
    closed = tick(two, now=0.0, enough=2)
    assert (closed.state, closed.answers[C]) == (RoundState.AGGREGATING, Answer.SILENT)


def test_a_round_with_fewer_devices_than_its_quorum_is_given_up_at_once() -> None:
    current = ask(open_round(1, attempt=1, quorum=2), (A,), deadline_at=100.0)

    assert current.state is RoundState.ABANDONED
    assert why_abandoned(current) == "Expected 2 updates in round 1, got no device to ask"


def test_gives_up_as_soon_as_the_quorum_is_out_of_reach() -> None:
    current = hear(hear(_asked(), A, Reply.REFUSE), B, Reply.FAIL)

    assert tick(current, now=0.0).state is RoundState.ABANDONED
    assert why_abandoned(tick(current, now=0.0)) == "Expected 2 updates in round 1, got 1 refused, 1 failed, 1 silent"


def test_an_update_after_the_end_is_late_and_not_accepted() -> None:
    current = tick(hear(hear(_asked(), A, Reply.UPDATE), B, Reply.UPDATE), now=100.0)

    late = hear(current, C, Reply.UPDATE)

    assert late.answers[C] is Answer.LATE
    assert late.accepted == (A, B)


def test_a_device_that_was_not_asked_is_not_heard() -> None:
    current = _asked(A, B)

    assert hear(current, C, Reply.UPDATE) is current


def test_a_deadline_is_only_ever_moved_back() -> None:
    assert extend(_asked(), deadline_at=50.0).deadline_at == 100.0
    assert extend(_asked(), deadline_at=150.0).deadline_at == 150.0


_DEVICES = [DeviceId(f"device-{number}") for number in range(6)]
_heard = st.lists(st.tuples(st.sampled_from(_DEVICES), st.sampled_from(SAID)), max_size=30)


@given(_heard, st.integers(1, 6), st.integers(0, 6))
def test_duplicates_change_nothing(heard: list[tuple[DeviceId, Reply]], quorum: int, again: int) -> None:
    once = _asked(*_DEVICES, quorum=quorum)
    for device, reply in heard:
        once = hear(once, device, reply)
    twice = once
    for device, reply in heard[: again * 5]:
        twice = hear(twice, device, reply)
    assert twice == once


@given(st.permutations(_DEVICES), st.lists(st.sampled_from(SAID), min_size=6, max_size=6), st.integers(1, 6))
def test_the_order_of_first_answers_does_not_matter(order: list[DeviceId], said: list[Reply], quorum: int) -> None:
    replies = dict(zip(_DEVICES, said, strict=True))
    current, other = _asked(*_DEVICES, quorum=quorum), _asked(*_DEVICES, quorum=quorum)
    for device in _DEVICES:
        current = hear(current, device, replies[device])
    for device in order:
        other = hear(other, device, replies[device])
    assert tick(current, now=0.0) == tick(other, now=0.0)


@given(_heard, st.integers(1, 6), st.lists(st.floats(0, 200), max_size=30))
def test_whatever_comes_what_was_decided_stays_decided(
    heard: list[tuple[DeviceId, Reply]], quorum: int, times: list[float]
) -> None:
    current = _asked(*_DEVICES, quorum=quorum)
    for (device, reply), now in zip(heard, [*times, *[200.0] * 30], strict=False):
        after = tick(hear(current, device, reply), now=now)
        if current.state is not RoundState.WAITING:
            assert (after.state, after.accepted) == (current.state, current.accepted)
        if after.state is RoundState.AGGREGATING:
            assert len(after.accepted) >= quorum
        current = after
    assert tick(current, now=1e9).state is not RoundState.WAITING


@given(st.dictionaries(st.sampled_from(_DEVICES), st.sampled_from(list(Reply))), st.integers(1, 6))
def test_replies_together_are_replies_one_by_one(replies: dict[DeviceId, Reply], quorum: int) -> None:
    one_by_one = asked = _asked(*_DEVICES[:5], quorum=min(quorum, 5))
    for device, reply in replies.items():
        one_by_one = hear(one_by_one, device, reply)
    assert hear_all(asked, replies) == one_by_one
