"""The coordinator remembers ledgers' heads: a copy that was put back is found, and nothing else is taken for one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.devices.witness import Witnessed, fork_of, judge
from shared.messages.events import LEDGER_ENTRIES_SHOWN, LedgerHead


def digests(length: int, *, branch_at: int | None = None) -> list[str]:
    """Of a ledger's entries, from 0; from the branch on those of another one."""
    found = [hashlib.sha256(b"genesis").hexdigest()]
    for entry in range(1, length + 1):
        other = "other" if branch_at is not None and entry >= branch_at else ""
        found.append(hashlib.sha256(f"{found[-1]} {entry} {other}".encode()).hexdigest())
    return found


def head(chain: list[str], *, shown: int = 0) -> LedgerHead:
    before = chain[-2 : -2 - shown : -1] if shown else []
    return LedgerHead(entries=len(chain) - 1, digest=chain[-1], before=before)


KNOWN = judge(head(digests(6)), None).witnessed


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=20).map(sorted), shown=st.integers(0, 8))
def test_a_ledger_that_grows_is_never_suspected(lengths: list[int], shown: int) -> None:
    known: Witnessed | None = None
    for length in lengths:
        told = head(digests(length), shown=shown)
        assert not fork_of(told, known)
        judged = judge(told, known)
        assert not judged.problem
        known = judged.witnessed
    assert known is not None
    assert known.entries == lengths[-1]


@pytest.mark.parametrize("length", [4, 0])
def test_a_ledger_that_went_back_is_found_and_the_highest_head_is_kept(length: int) -> None:
    judged = judge(head(digests(length)), KNOWN)
    assert judged.problem == f"Expected a ledger of at least 6 entries, as it had, got one of {length}"
    assert judged.witnessed == KNOWN


@pytest.mark.parametrize("length", [6, 7, 6 + LEDGER_ENTRIES_SHOWN])
def test_a_fork_is_found_even_where_it_has_grown_longer(length: int) -> None:
    forked = head(digests(length, branch_at=6), shown=min(length - 6, LEDGER_ENTRIES_SHOWN))
    judged = judge(forked, KNOWN)
    assert judged.problem == fork_of(forked, KNOWN)
    assert judged.problem == "Expected a ledger that goes on from entry 6, got another entry there"
    assert judged.witnessed == KNOWN


def test_a_fork_after_what_was_told_is_no_fork() -> None:
    assert judge(head(digests(9, branch_at=7), shown=3), KNOWN).problem == ""


def test_what_shows_too_little_of_its_past_is_taken_and_proves_nothing() -> None:
    assert judge(head(digests(20, branch_at=3), shown=8), KNOWN).problem is None
    assert fork_of(head(digests(4)), KNOWN) == ""
