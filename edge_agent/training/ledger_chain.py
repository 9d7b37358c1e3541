"""The ledger's seal: every entry carries the digest of the one before it and the device's signature.

Whoever edits, reorders, adds or removes an entry breaks the chain. Whoever puts an older copy back, or cuts the newest
entries off, is betrayed by the *head*, a file beside the ledger that names the newest entry and is written after it,
before anything is trained. What files cannot show: an older copy of both together, and whatever is signed by who holds
the device's key.

A kill between entry and head leaves a head that is behind; the chain goes on from it, and the head is brought up.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import ValidationError

from edge_agent.durable_sqlite import transaction
from edge_agent.errors import DamagedStateError
from shared.files import write_atomically
from shared.messages.base import MalformedMessageError, Message
from shared.messages.events import LEDGER_ENTRIES_SHOWN, LedgerHead

SCHEMA = """
CREATE TABLE IF NOT EXISTS chain (
    sequence INTEGER PRIMARY KEY,
    body TEXT NOT NULL,
    digest TEXT NOT NULL,
    signature BLOB NOT NULL
) STRICT;
"""
GENESIS = hashlib.sha256(b"fleetlearn privacy ledger").hexdigest()
"""What the first entry follows."""
Body = Mapping[str, str | None]
_log = structlog.get_logger()


def told_head(head_path: Path) -> LedgerHead:
    """What the head file says, for who does not open the ledger; no entries where it says nothing."""
    try:
        head = Head.parse(head_path.read_bytes())
        return LedgerHead(entries=head.entries, digest=head.digest)
    except (OSError, MalformedMessageError, ValidationError):
        return LedgerHead(entries=0, digest=GENESIS)


class Head(Message):
    """The newest entry, as the file beside the ledger names it."""

    entries: int
    digest: str


@dataclass(frozen=True)
class _Entry:
    sequence: int
    body: str
    digest: str
    signature: bytes


class Chain:
    """The sealed entries in a ledger's database.

    Args:
        connection: The ledger's, with `SCHEMA` in place and rows by name.
        head_path: Where the head lies.
        key: The device's.
    """

    def __init__(self, connection: sqlite3.Connection, *, head_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
        self._connection, self._head_path, self._key = connection, head_path, key
        self._head = Head(entries=0, digest=GENESIS)
        self._published = -1

    def open(self, unsealed: list[Body]) -> list[Body]:
        """All entries, oldest first, once nothing is wrong with them.

        Args:
            unsealed: What to take over where nothing was ever sealed: the entries of a ledger older than the seal.

        Raises:
            DamagedStateError: Entries were changed, or are not this device's, or the newest are missing.
        """
        published = self._read_head()
        entries = list(self._entries())
        if published is None:
            if entries:
                raise _broken("the head of its chain", "no such file")
            self.publish()
            published = self._head
        self._check(entries, published)
        if not entries and unsealed:
            _log.warning("privacy_ledger_sealed", entries=len(unsealed))
            with transaction(self._connection):
                for body in unsealed:
                    self.append(body)
            entries = list(self._entries())
        self.publish()
        return [json.loads(entry.body) for entry in entries]

    def append(self, body: Body) -> None:
        """Seals one more entry, within the caller's transaction; `publish` when that is on disk."""
        text = json.dumps(dict(body), sort_keys=True)
        sequence = self._newest() + 1
        digest = _digest(sequence, text, previous=self._digest_of(sequence - 1))
        signature = self._key.sign(digest.encode(), ec.ECDSA(SHA256()))
        self._connection.execute("INSERT INTO chain VALUES (?, ?, ?, ?)", (sequence, text, digest, signature))

    def publish(self) -> None:
        """Brings the head up to the newest entry that is on disk; nothing where it is there already."""
        newest = self._newest()
        if newest != self._published:
            self._head = Head(entries=newest, digest=self._digest_of(newest))
            write_atomically(self._head_path, self._head.encode())
            self._published = newest

    def told(self) -> LedgerHead:
        """The newest entry and a few before it, for the coordinator to remember."""
        rows = self._connection.execute(
            "SELECT digest FROM chain ORDER BY sequence DESC LIMIT ?", (1 + LEDGER_ENTRIES_SHOWN,)
        )
        newest, *before = [str(row["digest"]) for row in rows] or [GENESIS]
        return LedgerHead(entries=self._newest(), digest=newest, before=before)

    def _check(self, entries: list[_Entry], published: Head) -> None:
        previous = GENESIS
        for sequence, entry in enumerate(entries, start=1):
            if entry.sequence != sequence or entry.digest != _digest(sequence, entry.body, previous=previous):
                raise _broken(f"entry {sequence} as it was written", "another")
            previous = entry.digest
            if sequence == published.entries and entry.digest != published.digest:
                raise _broken(f"entry {sequence} as the head names it", "another")
        if len(entries) < published.entries:
            raise _broken(
                f"{published.entries} entries, as the head says", f"{len(entries)}: an older copy, or one cut short"
            )
        if entries:
            # Its digest covers all before it, so one signature is enough.
            try:
                self._key.public_key().verify(entries[-1].signature, previous.encode(), ec.ECDSA(SHA256()))
            except InvalidSignature:
                raise _broken("entries signed with this device's key", "another signature") from None

    def _entries(self) -> Iterator[_Entry]:
        for row in self._connection.execute("SELECT * FROM chain ORDER BY sequence"):
            yield _Entry(**dict(row))

    def _newest(self) -> int:
        (newest,) = self._connection.execute("SELECT coalesce(max(sequence), 0) FROM chain").fetchone()
        return int(newest)

    def _digest_of(self, sequence: int) -> str:
        row = self._connection.execute("SELECT digest FROM chain WHERE sequence = ?", (sequence,)).fetchone()
        return str(row["digest"]) if row else GENESIS

    def _read_head(self) -> Head | None:
        try:
            return Head.parse(self._head_path.read_bytes())
        except FileNotFoundError:
            return None
        except MalformedMessageError as error:
            raise _broken("the head of its chain", error.message) from error


def _digest(sequence: int, body: str, *, previous: str) -> str:
    return hashlib.sha256(f"{previous}\n{sequence}\n{body}".encode()).hexdigest()


def _broken(expected: str, got: str) -> DamagedStateError:
    return DamagedStateError(
        f"Expected the privacy ledger with {expected}, got {got}",
        hint="Restore the newest copy of ledger and head. Without one, what was spent is unknown: retire the data.",
    )
