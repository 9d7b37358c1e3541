"""The device's own account of privacy: what every data set has spent, in all campaigns and models together.

One account for each data set, in units of its task; and one for the device with all that it ever holds, which campaigns
with user-level privacy are charged to. Work that costs both is charged to both or is not done.

A mechanism event is reserved, on disk, before training begins, so that no kill can un-spend it; reserving the same work
again charges nothing. The update is kept beside the ledger before anybody is told of it, and a retry gets the same
bytes: training again would be a second look at the data for one price.

Guarantees:
    The composed events of one account stay within the owner's limit at the owner's delta, whatever is asked. Unit and
    neighbouring relation are the events' own: one unit added or removed; in the device's account, the device's part in
    every sum is zero. Void where the disk is rolled back to an older state: that needs a hardware counter. Data that
    changes is a new data set, with an account of its own; the device's account goes on.

Every reservation and every result is an entry of a chain that the device signs (`ledger_chain`), so that a ledger that
was edited, cut short or put back is refused instead of believed.

Light: needs SQLite alone; who computes epsilon is passed in. `read_balances` is what the agent reports.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.durable_sqlite import open_durable, transaction
from edge_agent.errors import DamagedStateError
from edge_agent.training.ledger_chain import SCHEMA as CHAIN_SCHEMA
from edge_agent.training.ledger_chain import Body, Chain
from shared.errors import FleetlearnError
from shared.files import write_atomically
from shared.messages.events import LedgerHead
from shared.privacy import DEVICE, MechanismEvent, PrivacyLimits, PrivacySpent

EpsilonOf = Callable[[Sequence[MechanismEvent], float], float]
UPDATES_KEPT_MAX = 64
"""Finished updates that stay for a retry; older ones are removed, and their work is then refused, never repeated."""
KEPT_MAX = 16
"""Pieces of work of which it is known what the next round goes on with; of older ones it is forgotten."""
_DAMAGED_HINT = "Restore the newest copy. Without one, what was spent is unknown: retire the data with the file."
_TOLERANCE = 1e-9
_READ_S = 0.2
"""How long `read_balances` waits for a writer; readers of a write-ahead log hardly ever do."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS work (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    work_id TEXT NOT NULL UNIQUE,
    dataset_id TEXT NOT NULL,
    event TEXT,
    metrics TEXT,
    update_digest TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS work_by_dataset ON work (dataset_id);
CREATE TABLE IF NOT EXISTS balance (
    dataset_id TEXT NOT NULL,
    unit TEXT NOT NULL,
    epsilon REAL NOT NULL,
    delta REAL NOT NULL,
    epsilon_limit REAL NOT NULL,
    PRIMARY KEY (dataset_id, unit)
) STRICT;
CREATE TABLE IF NOT EXISTS kept (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    campaign_id TEXT NOT NULL,
    work_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    UNIQUE (campaign_id, work_id)
) STRICT;
"""


_UPDATE_DIGESTS = (
    "SELECT update_digest AS digest FROM work WHERE update_digest IS NOT NULL ORDER BY sequence DESC LIMIT ?"
)
_KEPT_DIGESTS = "SELECT digest FROM kept ORDER BY sequence DESC LIMIT ?"


class PrivacyOverspendError(FleetlearnError):
    """Work that would spend more of a data set's privacy, or of the device's, than its owner allows."""

    code = "privacy_overspend"


class WorkConflictError(FleetlearnError):
    """A work id that was used before for something else, or whose update is no longer kept."""

    code = "work_conflict"


@dataclass(frozen=True)
class Finished:
    """Work that is done: its update's bytes, and what was measured."""

    update: bytes
    digest: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Charge:
    """What work costs an account beside its own data set's."""

    charge_id: str
    """Charged once, however much work says it."""
    event: MechanismEvent
    """Its `dataset_id` is the account."""


@dataclass(frozen=True)
class Kept:
    """What a campaign's later rounds go on with on this device: what did not travel yet, for one."""

    campaign_id: str
    content: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class Ledger:
    """The account in `state_dir`: a SQLite file and the folder of finished updates.

    Args:
        state_dir: The training process' own folder; made if absent.
        limits: The most that each account may spend, and at which delta: the owner's.
        epsilon_of: The accountant.
        key: The device's, which signs every entry.

    Raises:
        DamagedStateError: The file is damaged, or not as this device signed it. What was spent is unknown then, so that
            no new account is begun.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        limits: PrivacyLimits,
        epsilon_of: EpsilonOf,
        key: ec.EllipticCurvePrivateKey,
    ) -> None:
        self._updates, self._kept = state_dir / "updates", state_dir / "kept"
        self._updates.mkdir(parents=True, exist_ok=True)
        self._kept.mkdir(exist_ok=True)
        self._limits, self._delta, self._epsilon_of = limits, limits.delta, epsilon_of
        path = ledger_path(state_dir)
        _refuse_emptied(path)
        self._connection = _connect(path)
        self._chain = Chain(self._connection, head_path=head_path(state_dir), key=key)
        try:
            self._open_chain()
        except DamagedStateError:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def finished(self, work_id: str) -> Finished | None:
        """The stored result of this work, or nothing where it is new or was cut short.

        Raises WorkConflictError where it was finished, but its update is no longer kept.
        """
        row = self._row(work_id)
        if row is None or row["update_digest"] is None:
            return None
        digest = str(row["update_digest"])
        try:
            update = (self._updates / digest).read_bytes()
        except FileNotFoundError:
            raise WorkConflictError(
                f"Expected work that is new, got {work_id!r}, which was finished and whose update is no longer kept"
            ) from None
        if hashlib.sha256(update).hexdigest() != digest:
            raise WorkConflictError(f"Expected the stored update of {work_id!r} with SHA-256 {digest}, got other bytes")
        return Finished(update, digest, json.loads(row["metrics"]))

    def reserve(
        self, work_id: str, *, dataset_id: str, event: MechanismEvent | None, beside: Charge | None = None
    ) -> None:
        """Charges the event, durably, before the data is looked at; nothing more for work already reserved.

        Args:
            work_id: Of the work; the same id is the same event, or refused.
            dataset_id: Of the data the work trains on.
            event: What the work will do with privacy, or nothing where it trains without.
            beside: What it costs another account; both are charged, or neither.

        Raises:
            PrivacyOverspendError: An account would pass its limit.
            WorkConflictError: The id was reserved for another event or data set.
        """
        with transaction(self._connection):
            self._enter(work_id, dataset_id, event)
            if beside is not None:
                self._enter(beside.charge_id, beside.event.dataset_id, beside.event)
        # Also for work reserved before: a kill may have come between its entry and the head.
        self._chain.publish()

    def finish(self, work_id: str, *, update: bytes, metrics: dict[str, float], kept: Kept | None = None) -> Finished:
        """Stores the update of reserved work, durably; from here on this work has this one answer.

        Args:
            work_id: Of the work.
            update: What is sent, and sent again.
            metrics: What was measured.
            kept: What later rounds of the campaign go on with after this work; it stays with the update or not at all.
        """
        digest = hashlib.sha256(update).hexdigest()
        write_atomically(self._updates / digest, update)
        if kept is not None:
            write_atomically(self._kept / kept.digest, kept.content)
        figures = json.dumps(metrics)
        with transaction(self._connection):
            changed = self._connection.execute(
                "UPDATE work SET update_digest = ?, metrics = ? WHERE work_id = ? AND update_digest IS NULL",
                (digest, figures, work_id),
            ).rowcount
            if not changed:
                raise WorkConflictError(f"Expected reserved, unfinished work, got {work_id!r}")
            self._chain.append(_finished(work_id, digest, figures))
            if kept is not None:
                self._connection.execute(
                    "INSERT INTO kept (campaign_id, work_id, digest) VALUES (?, ?, ?)",
                    (kept.campaign_id, work_id, kept.digest),
                )
        self._chain.publish()
        self._remove_older(self._updates, _UPDATE_DIGESTS, UPDATES_KEPT_MAX)
        self._remove_older(self._kept, _KEPT_DIGESTS, KEPT_MAX)
        return Finished(update, digest, metrics)

    def kept(self, campaign_id: str, *, after_work: str) -> bytes | None:
        """What was kept after this work of the campaign; nothing where that is unknown, forgotten or damaged."""
        row = self._connection.execute(
            "SELECT digest FROM kept WHERE campaign_id = ? AND work_id = ?", (campaign_id, after_work)
        ).fetchone()
        path = self._kept / (str(row["digest"]) if row else "unknown")
        content = path.read_bytes() if path.is_file() else None
        return content if content is not None and hashlib.sha256(content).hexdigest() == path.name else None

    def is_reserved(self, work_id: str) -> bool:
        """Whether the work may have looked at the data."""
        return self._row(work_id) is not None

    def charged(self, work_id: str) -> PrivacySpent | None:
        """The account that this work was charged to, as it is now; nothing where it was not."""
        row = self._row(work_id)
        if row is None or row["event"] is None:
            return None
        return self.spent(row["dataset_id"], MechanismEvent.model_validate_json(row["event"]).unit)

    def balance(self, dataset_id: str, delta: float) -> float:
        """Epsilon at `delta` of all that was ever reserved on the data set."""
        return self._epsilon_of(self._events(dataset_id), delta)

    def spent(self, dataset_id: str, unit: str) -> PrivacySpent:
        """The account at the owner's delta, beside the owner's limit."""
        return PrivacySpent(
            epsilon=self.balance(dataset_id, self._delta),
            delta=self._delta,
            epsilon_limit=self._limit(dataset_id),
            dataset_id=dataset_id,
            unit=unit,
        )

    def told(self) -> LedgerHead:
        """What a result tells the coordinator of it."""
        return self._chain.told()

    def _open_chain(self) -> None:
        """Raises DamagedStateError where the chain is broken, or says other than the table of work."""
        rows = self._connection.execute("SELECT * FROM work ORDER BY sequence").fetchall()
        work = [dict(row) for row in rows]
        reserved = [_reserved(row["work_id"], row["dataset_id"], row["event"]) for row in work]
        finished = [
            _finished(row["work_id"], row["update_digest"], row["metrics"]) for row in work if row["update_digest"]
        ]
        sealed = self._chain.open([*reserved, *finished])
        if [body for body in sealed if "dataset_id" in body] != reserved or _by_work(sealed) != _by_work(finished):
            raise DamagedStateError(
                "Expected the privacy ledger to hold what this device signed, got other work", hint=_DAMAGED_HINT
            )

    def _enter(self, charge_id: str, dataset_id: str, event: MechanismEvent | None) -> None:
        """Charges once for an id, within the caller's transaction."""
        wanted = event.model_dump_json() if event else None
        row = self._row(charge_id)
        if row is not None:
            if (row["dataset_id"], row["event"]) != (dataset_id, wanted):
                raise WorkConflictError(
                    f"Expected work {charge_id!r} as reserved before, got another mechanism or data"
                )
            return
        if event is not None:
            self._charge(dataset_id, event)
        self._connection.execute(
            "INSERT INTO work (work_id, dataset_id, event) VALUES (?, ?, ?)", (charge_id, dataset_id, wanted)
        )
        self._chain.append(_reserved(charge_id, dataset_id, wanted))

    def _charge(self, dataset_id: str, event: MechanismEvent) -> None:
        events, limit = self._events(dataset_id), self._limit(dataset_id)
        after = self._epsilon_of([*events, event], self._delta)
        if not after <= limit + _TOLERANCE:
            before = self._epsilon_of(events, self._delta)
            whose = "this device with all its data" if dataset_id == DEVICE else "this data"
            raise PrivacyOverspendError(
                f"Expected at most epsilon {limit:g} at delta {self._delta:g} for {whose}, "
                f"got {after:.3f} with this work after {before:.3f} spent",
                hint="The device's owner may raise its epsilon limit; the campaign may ask for less.",
            )
        self._connection.execute(
            "INSERT OR REPLACE INTO balance VALUES (?, ?, ?, ?, ?)",
            (dataset_id, event.unit, after, self._delta, limit),
        )

    def _limit(self, dataset_id: str) -> float:
        return self._limits.device_epsilon_limit if dataset_id == DEVICE else self._limits.epsilon_limit

    def _events(self, dataset_id: str) -> list[MechanismEvent]:
        rows = self._connection.execute(
            "SELECT event FROM work WHERE dataset_id = ? AND event IS NOT NULL ORDER BY sequence", (dataset_id,)
        )
        return [MechanismEvent.model_validate_json(row["event"]) for row in rows]

    def _row(self, work_id: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            "SELECT * FROM work WHERE work_id = ?", (work_id,)
        ).fetchone()
        return row

    def _remove_older(self, folder: Path, query: str, most: int) -> None:
        newest = {row["digest"] for row in self._connection.execute(query, (most,))}
        for path in folder.iterdir():
            if path.name not in newest:
                path.unlink(missing_ok=True)


def ledger_path(state_dir: Path) -> Path:
    """Where the ledger of this state folder lies."""
    return state_dir / "privacy-ledger.sqlite3"


def head_path(state_dir: Path) -> Path:
    """Where the head of this folder's ledger lies: see `ledger_chain`."""
    return state_dir / "privacy-ledger.head.json"


def read_balances(state_dir: Path) -> list[PrivacySpent] | None:
    """Every account as the last charge left it, without an accountant; empty where nothing was charged.

    Reads beside the process that writes, and changes nothing. None where it cannot be read: damaged, locked, or being
    made this moment. Whoever opens it says which.
    """
    path = ledger_path(state_dir)
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_READ_S)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM balance ORDER BY dataset_id, unit").fetchall()
    except sqlite3.Error:
        return None
    return [PrivacySpent(**dict(row)) for row in rows]


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = open_durable(path, schema=_SCHEMA + CHAIN_SCHEMA)
    except DamagedStateError as error:
        raise DamagedStateError(f"{error.message} (the privacy ledger)", hint=_DAMAGED_HINT) from error
    connection.row_factory = sqlite3.Row
    return connection


def _refuse_emptied(path: Path) -> None:
    """Raises DamagedStateError for a file of no bytes, which SQLite would take for a new database."""
    if path.exists() and path.stat().st_size == 0:
        raise DamagedStateError(f"Expected a privacy ledger at {path}, got an empty file", hint=_DAMAGED_HINT)


def _reserved(work_id: str, dataset_id: str, event: str | None) -> Body:
    return {"work_id": work_id, "dataset_id": dataset_id, "event": event}


def _finished(work_id: str, update_digest: str, metrics: str) -> Body:
    return {"work_id": work_id, "update_digest": update_digest, "metrics": metrics}


def _by_work(bodies: Sequence[Body]) -> dict[str | None, Body]:
    """The finished ones, by their work: they may end in another order than they began."""
    return {body["work_id"]: body for body in bodies if "update_digest" in body}
