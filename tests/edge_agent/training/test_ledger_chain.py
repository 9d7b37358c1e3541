"""The sealed ledger: whatever was changed behind its back is found, and no kill or full disk un-spends anything."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import DamagedStateError
from edge_agent.training.ledger import Ledger, head_path, ledger_path
from shared.accountant import epsilon_of
from tests.edge_agent.training.ledgers import DELTA, ROUND, counting_ledger, open_ledger, same_limits

KILLS = 5


def _fill(state_dir: Path, *, start: int = 0, works: int = 4) -> None:
    """Work that is reserved and finished, but for the last."""
    ledger = open_ledger(state_dir)
    for number in range(start, works):
        ledger.reserve(f"w{number}", dataset_id="data", event=ROUND)
        if number < works - 1:
            ledger.finish(f"w{number}", update=f"update {number}".encode(), metrics={"num-examples": 3.0})
    ledger.close()


@contextmanager
def _database(state_dir: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(ledger_path(state_dir))
    with connection:
        yield connection
    connection.close()


def _refused(state_dir: Path) -> bool:
    try:
        open_ledger(state_dir).close()
    except DamagedStateError as error:
        return "ledger" in error.message
    return False


EDITS = {
    "a charge made smaller": "UPDATE work SET event = replace(event, '2.02', '9.99') WHERE work_id = 'w1'",
    "a charge removed": "DELETE FROM work WHERE work_id = 'w1'",
    "a charge moved to other data": "UPDATE work SET dataset_id = 'other' WHERE work_id = 'w2'",
    "finished work made unfinished": "UPDATE work SET update_digest = NULL, metrics = NULL WHERE work_id = 'w0'",
    "another update in its place": "UPDATE work SET update_digest = 'abc' WHERE work_id = 'w0'",
    "an entry changed": "UPDATE chain SET body = replace(body, 'data', 'date') WHERE sequence = 1",
    "an entry removed": "DELETE FROM chain WHERE sequence = 3",
    "the newest entry removed": "DELETE FROM chain WHERE sequence = (SELECT max(sequence) FROM chain)",
    "all entries removed": "DELETE FROM chain",
    "work added": "INSERT INTO work (work_id, dataset_id) VALUES ('w9', 'data')",
    "a signature changed": "UPDATE chain SET signature = x'00' WHERE sequence = (SELECT max(sequence) FROM chain)",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_ledger_is_refused(edit: str, tmp_path: Path) -> None:
    _fill(tmp_path)
    assert not _refused(tmp_path)
    with _database(tmp_path) as connection:
        connection.execute(EDITS[edit])
    assert _refused(tmp_path)


def test_a_newest_charge_that_vanishes_with_its_entry_is_missed(tmp_path: Path) -> None:
    _fill(tmp_path)
    with _database(tmp_path) as connection:
        connection.execute("DELETE FROM work WHERE work_id = 'w3'")
        connection.execute("DELETE FROM chain WHERE sequence = (SELECT max(sequence) FROM chain)")
    assert _refused(tmp_path)


def test_an_older_copy_of_the_ledger_is_refused(tmp_path: Path) -> None:
    _fill(tmp_path, works=2)
    old = tmp_path / "backup"
    shutil.copy(ledger_path(tmp_path), old)
    _fill(tmp_path, start=2)
    for beside in tmp_path.glob("privacy-ledger.sqlite3-*"):
        beside.unlink()
    shutil.copy(old, ledger_path(tmp_path))
    assert _refused(tmp_path)


@pytest.mark.parametrize("path", [ledger_path, head_path])
def test_neither_ledger_nor_head_may_vanish_alone(path: Callable[[Path], Path], tmp_path: Path) -> None:
    _fill(tmp_path)
    for file in tmp_path.glob(path(tmp_path).name + "*"):
        file.unlink()
    assert _refused(tmp_path)


def test_another_devices_ledger_is_refused(tmp_path: Path) -> None:
    _fill(tmp_path)
    other = ec.derive_private_key(7, ec.SECP256R1())
    with pytest.raises(DamagedStateError, match="this device's key"):
        Ledger(tmp_path, limits=same_limits(8.0), epsilon_of=epsilon_of, key=other)


def test_a_ledger_older_than_the_seal_is_taken_over_as_it_is_and_sealed(tmp_path: Path) -> None:
    _fill(tmp_path)
    before = open_ledger(tmp_path)
    spent = before.balance("data", DELTA)
    before.close()
    with _database(tmp_path) as connection:
        connection.execute("DROP TABLE chain")
    head_path(tmp_path).unlink()
    ledger = open_ledger(tmp_path)
    assert ledger.balance("data", DELTA) == spent
    ledger.close()
    with _database(tmp_path) as connection:
        connection.execute(EDITS["a charge made smaller"])
    assert _refused(tmp_path)


def test_a_head_that_a_kill_left_behind_is_brought_up(tmp_path: Path) -> None:
    _fill(tmp_path, works=1)
    head = head_path(tmp_path).read_bytes()
    _fill(tmp_path, start=1)
    head_path(tmp_path).write_bytes(head)
    open_ledger(tmp_path).close()
    with _database(tmp_path) as connection:
        (entries,) = connection.execute("SELECT count(*) FROM chain").fetchone()
    assert json.loads(head_path(tmp_path).read_bytes())["entries"] == entries == 6


@given(cut=st.integers(0, 6), keep=st.integers(0, 6))
@settings(max_examples=15, deadline=None)
def test_only_the_whole_chain_with_its_head_is_believed(
    cut: int, keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cutting off any number of newest entries is found, whatever true head, newer or older, is beside them."""
    folder = tmp_path_factory.mktemp("ledger")
    _fill(folder)
    with _database(folder) as connection:
        digests = [row[0] for row in connection.execute("SELECT digest FROM chain ORDER BY sequence")]
        connection.execute("DELETE FROM chain WHERE sequence > ?", (7 - cut,))
    head = {"entries": keep + 1, "digest": digests[keep]}
    head_path(folder).write_text(json.dumps(head))
    assert _refused(folder) == (cut > 0)


class _Disk:
    """Fails the n-th flush, and all after it, as a disk that is full or gone; SQLite's own steps count as well."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at

    def fails(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_whatever_write_fails_nothing_that_was_promised_is_unspent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every n: the n-th write and all later ones fail; then the machine starts again."""
    flush, is_whole, number = os.fsync, False, 0
    while not is_whole:
        folder = tmp_path / str(number)
        folder.mkdir()
        disk = _Disk(number)

        def fsync(descriptor: int, disk: _Disk = disk) -> None:
            if disk.fails():
                raise OSError(28, "No space left on device")
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        promised, is_whole = _two_rounds(folder, disk)
        monkeypatch.setattr(os, "fsync", flush)
        ledger = open_ledger(folder)
        assert ledger.balance("data", DELTA) >= epsilon_of([ROUND] * len(promised["reserved"]), DELTA)
        for work in promised["finished"]:
            found = ledger.finished(work)
            assert found is not None
            assert found.update == work.encode()
        ledger.reserve("w0", dataset_id="data", event=ROUND)
        ledger.close()
        number += 1
    assert number > 15


def _two_rounds(folder: Path, disk: _Disk) -> tuple[dict[str, list[str]], bool]:
    """What was promised before the disk failed, and whether it never did."""
    promised: dict[str, list[str]] = {"reserved": [], "finished": []}
    try:
        ledger = open_ledger(folder)
    except (OSError, sqlite3.OperationalError):
        return promised, False
    ledger._connection.set_progress_handler(disk.fails, 60)
    try:
        for number in range(2):
            ledger.reserve(f"w{number}", dataset_id="data", event=ROUND)
            promised["reserved"].append(f"w{number}")
            ledger.finish(f"w{number}", update=f"w{number}".encode(), metrics={})
            promised["finished"].append(f"w{number}")
    except (OSError, sqlite3.OperationalError):
        return promised, False
    finally:
        ledger._connection.set_progress_handler(None, 0)
        ledger.close()
    return promised, True


_SPEND = """
import sys
from pathlib import Path
from tests.edge_agent.training.ledgers import ROUND, counting_ledger
ledger = counting_ledger(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 100000):
    ledger.reserve(f"w{number}", dataset_id="data", event=ROUND)
    print(number, flush=True)
    ledger.finish(f"w{number}", update=b"update", metrics={})
"""


@pytest.mark.processes
def test_a_process_killed_at_any_moment_has_unspent_nothing(tmp_path: Path) -> None:
    moments, told = random.Random(5), 0
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", _SPEND, str(tmp_path), str(told)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = int(process.stdout.readline()) + 1
            time.sleep(moments.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) + 1 for line in process.stdout.read().splitlines() if line)])
        ledger = counting_ledger(tmp_path)
        charged = ledger._events("data")
        ledger.close()
        # At most one more than was told of: the kill came between the charge and the word of it.
        assert told <= len(charged) <= told + 1
        told = len(charged)
    assert told > KILLS
