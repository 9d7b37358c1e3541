"""The outbox: order, bounds, and what a kill leaves of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.errors import DamagedStateError
from edge_agent.telemetry.spool import RESULTS_WAITING_MAX, Outbox, OutboxBounds
from shared.messages.events import EventKind

REPORT, STATUS, RESULT = EventKind.SERVING_REPORT, EventKind.RELEASE_STATUS, EventKind.WORK_RESULT


def payloads(outbox: Outbox) -> list[bytes]:
    return [row.payload for row in outbox.head(limit=1000)]


def test_events_leave_in_the_order_they_came_and_only_when_removed(tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path / "o.sqlite")
    for number in range(3):
        outbox.add(STATUS, b"%d" % number)
    assert payloads(outbox) == payloads(outbox) == [b"0", b"1", b"2"]
    outbox.remove(outbox.head(limit=1)[0].number)
    assert payloads(outbox) == [b"1", b"2"]
    outbox.close()


def test_at_the_bound_the_oldest_reports_go_first_then_statuses_never_results(tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path / "o.sqlite", bounds=OutboxBounds(rows_max=4))
    outbox.add_result("w1", b"result-1")
    outbox.add(STATUS, b"status-1")
    outbox.add(REPORT, b"report-1")
    outbox.add(REPORT, b"report-2")
    outbox.add(STATUS, b"status-2")
    assert payloads(outbox) == [b"result-1", b"status-1", b"report-2", b"status-2"]
    for number in range(2, 7):
        outbox.add_result(f"w{number}", b"result-%d" % number)
    assert payloads(outbox) == [b"result-%d" % number for number in range(1, 7)]
    assert outbox.dropped == 4
    outbox.close()


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path / "o.sqlite", bounds=OutboxBounds(bytes_max=100))
    for number in range(5):
        outbox.add(REPORT, b"%d" % number * 40)
    assert payloads(outbox) == [b"3" * 40, b"4" * 40]
    outbox.close()


def test_finished_work_is_answered_again_with_the_same_bytes_but_queued_once(tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path / "o.sqlite")
    outbox.add_result("w1", b"result")
    outbox.resend_result("w1")
    assert payloads(outbox) == [b"result"]
    outbox.remove(outbox.head(limit=1)[0].number)
    assert outbox.finished(["w1", "w2"]) == {"w1"}
    outbox.resend_result("w1")
    outbox.resend_result("unknown")
    assert payloads(outbox) == [b"result"]
    outbox.close()


def test_many_unsent_results_stop_the_fetching(tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path / "o.sqlite")
    for number in range(RESULTS_WAITING_MAX):
        assert not outbox.is_congested
        outbox.add_result(f"w{number}", b"r")
    assert outbox.is_congested
    outbox.close()


def test_a_damaged_file_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "o.sqlite").write_bytes(b"this is no database at all, but long enough to look at" * 100)
    with pytest.raises(DamagedStateError, match="outbox"):
        Outbox.open(tmp_path / "o.sqlite")


WRITER = """
import sys
from pathlib import Path
from edge_agent.telemetry.spool import Outbox
from shared.messages.events import EventKind
outbox = Outbox.open(Path(sys.argv[1]))
for number in range(1_000_000):
    outbox.add(EventKind.RELEASE_STATUS, b"%d" % number)
    print(number, flush=True)
"""


@pytest.mark.processes
def test_what_was_added_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 50:
                break
        writer.kill()
        rest = writer.stdout.read().split()
    last = int(rest[-1]) if rest else int(line)
    outbox = Outbox.open(path)
    kept = [int(row.payload) for row in outbox.head(limit=2_000_000)]
    outbox.close()
    assert kept == list(range(len(kept)))
    assert len(kept) >= last + 1
