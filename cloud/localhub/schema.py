"""The hub's tables, as the steps that made them. A released step is never edited; a change is a new step."""

import sqlite3
from collections.abc import Callable, Iterator

from cloud.localhub.partitions import partition_of

Step = str | Callable[[sqlite3.Connection, int], None]
"""SQL, or a function of the database and the number of partitions, called inside the step's transaction."""


def migrate(database: sqlite3.Connection, *, partitions: int) -> None:
    """Brings a database to the newest step, each step in a transaction. `partitions` is for a log that has none yet."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    for number, step in enumerate(STEPS[version:], start=version + 1):
        if isinstance(step, str):
            database.executescript(f"BEGIN;{step}PRAGMA user_version={number};COMMIT;")
        else:
            database.execute("BEGIN")
            step(database, partitions)
            database.execute(f"PRAGMA user_version={number}")
            database.execute("COMMIT")


def _partition_events(database: sqlite3.Connection, partitions: int) -> None:
    """Gives the log partitions, and each event its place in one; copies the log once, row by row."""
    for statement in _PARTITIONED_LOG.split(";"):
        database.execute(statement)
    last = [-1] * partitions
    rows = database.execute(
        "SELECT event_offset, device_id, enqueued_at, bytes_before, properties, body FROM old_events"
    )

    def placed() -> Iterator[tuple[object, ...]]:
        for offset, device_id, *rest in rows:
            partition = partition_of(device_id, partitions)
            last[partition] += 1
            yield (offset, partition, last[partition], device_id, *rest)

    database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", placed())
    database.executemany("INSERT INTO partitions VALUES (?, ?)", enumerate(last))
    newest = database.execute(
        "SELECT bytes_before + length(properties) + length(body) FROM events ORDER BY event_offset DESC LIMIT 1"
    ).fetchone()
    database.execute("INSERT INTO totals VALUES ('event_bytes', ?)", newest or (0,))
    database.execute("DROP TABLE old_events")


_PARTITIONED_LOG = """
    ALTER TABLE events RENAME TO old_events;
    CREATE TABLE events (
        event_offset INTEGER PRIMARY KEY AUTOINCREMENT,
        partition INTEGER NOT NULL,
        sequence_number INTEGER NOT NULL,
        device_id TEXT NOT NULL,
        enqueued_at REAL NOT NULL,
        bytes_before INTEGER NOT NULL,
        properties TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX events_by_partition ON events (partition, sequence_number);
    CREATE TABLE partitions (partition INTEGER PRIMARY KEY, last_sequence_number INTEGER NOT NULL);
    CREATE TABLE consumer_groups (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE checkpoints (
        group_name TEXT NOT NULL,
        partition INTEGER NOT NULL,
        sequence_number INTEGER NOT NULL,
        PRIMARY KEY (group_name, partition)
    ) WITHOUT ROWID;
    INSERT INTO consumer_groups VALUES ('$Default')
"""

STEPS: tuple[Step, ...] = (
    """
    CREATE TABLE devices (
        device_id TEXT PRIMARY KEY,
        identity TEXT NOT NULL,
        twin TEXT NOT NULL,
        filters TEXT NOT NULL DEFAULT '[]'
    ) WITHOUT ROWID;
    CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
    INSERT INTO totals VALUES ('devices', 0);
    CREATE TRIGGER device_added AFTER INSERT ON devices
        BEGIN UPDATE totals SET value = value + 1 WHERE name = 'devices'; END;
    CREATE TRIGGER device_deleted AFTER DELETE ON devices
        BEGIN UPDATE totals SET value = value - 1 WHERE name = 'devices'; END;
    CREATE TABLE events (
        event_offset INTEGER PRIMARY KEY AUTOINCREMENT,
        device_id TEXT NOT NULL,
        enqueued_at REAL NOT NULL,
        properties TEXT NOT NULL,
        body BLOB NOT NULL,
        bytes_before INTEGER NOT NULL
    );
    """,
    # Modules, and messages from the cloud, and notices to services. A module's key is '{device}/{module}': no id has a
    # slash. A session keeps the QoS of each filter since a message needs it, where it kept the filters alone before.
    """
    CREATE TABLE modules (
        module_key TEXT PRIMARY KEY,
        identity TEXT NOT NULL,
        twin TEXT NOT NULL,
        filters TEXT NOT NULL DEFAULT '{}'
    ) WITHOUT ROWID;
    UPDATE devices SET filters = (SELECT json_group_object(value, 1) FROM json_each(filters)) WHERE filters <> '[]';
    UPDATE devices SET filters = '{}' WHERE filters = '[]';
    CREATE TABLE messages (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        device_id TEXT NOT NULL,
        properties TEXT NOT NULL,
        body BLOB NOT NULL,
        enqueued_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        deliveries INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX messages_by_device ON messages (device_id, sequence);
    CREATE INDEX messages_by_expiry ON messages (expires_at);
    CREATE TABLE notices (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        recorded_at REAL NOT NULL,
        record TEXT NOT NULL
    );
    CREATE INDEX notices_by_kind ON notices (kind, sequence);
    CREATE TABLE uploads (
        correlation_id TEXT PRIMARY KEY,
        device_id TEXT NOT NULL,
        blob_name TEXT NOT NULL,
        expires_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX uploads_by_device ON uploads (device_id);
    CREATE INDEX uploads_by_expiry ON uploads (expires_at);
    """,
    # The provisioning service. Its id scope looks like Azure's.
    """
    CREATE TABLE provisioning (id_scope TEXT NOT NULL);
    INSERT INTO provisioning VALUES ('0ne' || hex(randomblob(4)));
    CREATE TABLE enrollments (
        kind TEXT NOT NULL,
        enrollment_id TEXT NOT NULL,
        attestation TEXT NOT NULL,
        document TEXT NOT NULL,
        PRIMARY KEY (kind, enrollment_id)
    ) WITHOUT ROWID;
    CREATE TABLE registrations (registration_id TEXT PRIMARY KEY, group_id TEXT, state TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX registrations_by_group ON registrations (group_id, registration_id);
    """,
    _partition_events,
    # Automatic configurations, and what they did to each twin.
    """
    CREATE TABLE configurations (configuration_id TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
    ALTER TABLE devices ADD COLUMN configured TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE modules ADD COLUMN configured TEXT NOT NULL DEFAULT '{}';
    """,
    # Scheduled jobs, and each device's part in them.
    """
    CREATE TABLE jobs (
        job_id TEXT PRIMARY KEY,
        status TEXT NOT NULL,
        start_at REAL NOT NULL,
        ended_at REAL,
        document TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE device_jobs (
        job_key TEXT PRIMARY KEY,
        job_id TEXT NOT NULL,
        device_key TEXT NOT NULL,
        status TEXT NOT NULL,
        document TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX device_jobs_by_status ON device_jobs (job_id, status);
    CREATE TABLE transfers (transfer_id TEXT PRIMARY KEY, started_at REAL NOT NULL, document TEXT NOT NULL);
    """,
)
