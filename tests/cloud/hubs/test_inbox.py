"""The inbox: one order out of several partitions, each event once, across kills and repeats."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.hubs.inbox import Arrival, Inbox
from shared.hub.port import HubRefusedError, LogStartedOverError


def _arrivals(first: int, last: int, *, device: str = "press-07") -> list[Arrival]:
    return [Arrival(number, device, float(number), f"{device} {number}".encode()) for number in range(first, last + 1)]


def test_partitions_become_one_order_and_their_positions_survive_a_restart(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox.sqlite")
    inbox.put("0", _arrivals(0, 2))
    inbox.put("1", _arrivals(5, 6, device="press-08"))
    events = inbox.read(0, limit=4)
    assert [(event.offset, event.payload) for event in events] == [
        (1, b"press-07 0"),
        (2, b"press-07 1"),
        (3, b"press-07 2"),
        (4, b"press-08 5"),
    ]
    inbox.close()
    again = Inbox(tmp_path / "inbox.sqlite")
    assert again.positions() == {"0": 2, "1": 6}
    assert [event.offset for event in again.read(4, limit=9)] == [5]
    assert again.unread() == 1
    again.close()


def test_an_inbox_that_was_lost_is_a_log_that_started_over(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox.sqlite")
    with pytest.raises(LogStartedOverError):
        inbox.read(7, limit=1)
    inbox.put("0", _arrivals(0, 0))
    assert [event.offset for event in inbox.read(0, limit=1)] == [1]
    assert inbox.read(1, limit=1) == []
    inbox.put("0", _arrivals(1, 1))
    assert [event.offset for event in inbox.read(1, limit=1)] == [2]
    inbox.close()


def test_a_file_that_is_no_inbox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inbox.sqlite").write_text("something else, long enough to be read as a damaged database" * 20)
    with pytest.raises(HubRefusedError):
        Inbox(tmp_path / "inbox.sqlite")


@given(st.lists(st.tuples(st.sampled_from("01"), st.integers(0, 30), st.integers(0, 8)), max_size=30))
def test_whatever_comes_twice_or_overlaps_is_there_once_and_in_order(deliveries: list[tuple[str, int, int]]) -> None:
    with TemporaryDirectory() as folder:
        inbox = Inbox(Path(folder) / "inbox.sqlite")
        for partition, first, more in deliveries:
            inbox.put(partition, _arrivals(first, first + more, device=f"press-{partition}"))
        events = inbox.read(0, limit=10_000)
        for partition in "01":
            numbers = [int(event.enqueued_at) for event in events if event.device_id == f"press-{partition}"]
            assert numbers == sorted(set(numbers))
        assert [event.offset for event in events] == list(range(1, len(events) + 1))
        inbox.close()
