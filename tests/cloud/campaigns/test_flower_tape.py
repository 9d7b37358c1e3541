"""What a ServerApp is shown again: the same, in the same order, and an end where it does something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.campaigns.errors import DepartedError
from cloud.campaigns.flower.tape import Asked, Event, Nodes, Received, Sent, Tape
from shared.ids import DeviceId, Digest

A, B = DeviceId("a"), DeviceId("b")


def asked(device: DeviceId, content: str = "1", *, message_type: str = "train") -> Asked:
    return Asked(device, message_type, "", Digest(content * 64))


ROUND: tuple[Event, ...] = (
    Nodes((A, B)),
    Sent((asked(A), asked(B)), ("w1", "w2")),
    Received(("w2", "w1")),
)


def test_what_was_recorded_is_shown_once_and_then_the_fleet_is_asked() -> None:
    tape = Tape(ROUND)

    assert tape.nodes() == (A, B)
    assert tape.sent([asked(A), asked(B)]) == ("w1", "w2")
    assert tape.received(["w1", "w2"]) == ("w2", "w1")
    assert tape.is_at_end
    assert tape.nodes() is None
    assert tape.sent([asked(A, "2")]) is None
    assert not tape.has_answers


def test_the_order_within_what_is_sent_is_free() -> None:
    assert Tape(ROUND).sent([asked(B), asked(A)]) == ("w2", "w1")


def test_two_equal_messages_to_one_device_are_two() -> None:
    tape = Tape([Sent((asked(A), asked(A)), ("w1", "w2"))])
    assert tape.sent([asked(A), asked(A)]) == ("w1", "w2")


@pytest.mark.parametrize(
    "messages",
    [[asked(A)], [asked(A), asked(B, "2")], [asked(A), asked(B, message_type="evaluate")], [asked(A), asked(B)] * 2],
)
def test_anything_else_is_another_run(messages: list[Asked]) -> None:
    with pytest.raises(DepartedError, match="Expected the ServerApp to send what it sent before"):
        Tape(ROUND).sent(messages)


def test_an_app_that_ends_before_it_did_is_another_run() -> None:
    tape = Tape(ROUND)
    with pytest.raises(DepartedError, match="'train' to a, content 111111111111, got nothing"):
        tape.check_is_at_end()
    tape.sent([asked(A), asked(B)])
    tape.check_is_at_end()  # answers that nobody takes any more do no harm


def test_devices_are_seen_as_then_until_the_next_change_is_due() -> None:
    tape = Tape([*ROUND, Nodes((A,)), Sent((asked(A, "2"),), ("w3",))])

    assert [tape.nodes(), tape.nodes()] == [(A, B), (A, B)]
    tape.sent([asked(A), asked(B)])
    assert tape.nodes() == (A, B)  # the answers were not taken yet
    tape.received(["w1", "w2"])
    assert [tape.nodes(), tape.nodes()] == [(A,), (A,)]


def test_only_changes_of_the_fleet_are_worth_recording() -> None:
    tape = Tape([])
    assert [tape.saw((A,)), tape.saw((A,)), tape.saw(()), tape.saw((A,))] == [True, False, True, True]


def test_answers_come_in_the_order_of_then_whichever_thread_asks_first() -> None:
    tape = Tape([Sent((asked(A),), ("w1",)), Sent((asked(B),), ("w2",)), Received(("w2",)), Received(("w1",))])
    assert tape.sent([asked(B)]) == ("w2",)
    assert tape.sent([asked(A)]) == ("w1",)

    assert tape.received(["w1"]) is None  # the other's turn
    assert tape.received(["w2"]) == ("w2",)
    assert tape.received(["w1"]) == ("w1",)


Script = list[tuple[bool, int]]
"""What an app does: send to so many devices, or take so many answers."""


def _play(script: Script, tape: Tape, events: list[Event]) -> list[object]:
    """Runs the app over the tape, and beyond its end over a fleet that answers the oldest first; what the app saw."""
    saw: list[object] = []
    open_: list[str] = []
    for step, (sends, count) in enumerate(script):
        if (found := tape.nodes()) is None:
            found = tuple(DeviceId(f"d{number}") for number in range(1 + len(events) % 3))
            if tape.saw(found):
                events.append(Nodes(found))
        saw.append(found)
        if sends:
            messages = tuple(asked(device, str(step % 10)) for device in found[:count])
            if not messages:
                continue
            if (ids := tape.sent(messages)) is None:
                ids = tuple(f"w{len(events)}-{place}" for place in range(len(messages)))
                events.append(Sent(messages, ids))
            open_ += ids
        elif open_:
            taken = tape.received(open_) if tape.has_answers else None
            if taken is None:
                taken = tuple(open_[: max(1, count)])
                events.append(Received(taken))
            saw.append(taken)
            open_ = [each for each in open_ if each not in taken]
    return saw


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=12), st.integers(0, 40))
def test_an_app_killed_anywhere_sees_the_same_again(script: Script, kept: int) -> None:
    events: list[Event] = []
    first = _play(script, Tape([]), events)

    again: list[Event] = events[:kept]
    assert _play(script, Tape(again), again) == first
    assert again == events
