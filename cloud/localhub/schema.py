"""The hub's tables, as the steps that made them. A released step is never edited; a change is a new step."""

STEPS: tuple[str, ...] = (
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
)
