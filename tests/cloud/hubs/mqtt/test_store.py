"""What the coordinator keeps for a broker's fleet, on both databases: many requests in one commit, each by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.db import open_engine, session_factory
from cloud.hubs.mqtt import store as module
from cloud.hubs.mqtt.store import Answer, MqttStore, Request
from cloud.migrations.upgrade import upgrade_database
from shared.hub.port import DOCUMENT_BYTES_MAX, EVENT_BYTES_MAX, LogStartedOverError, UnknownDeviceError, Versioned
from shared.ids import DeviceId

A, B, STRANGER = DeviceId("press-a"), DeviceId("press-b"), DeviceId("stranger")


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[MqttStore]:
    url = database_url or f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
    upgrade_database(url)
    engine = open_engine(url)
    made = MqttStore(session_factory(engine), now=lambda: 7.0)
    made.add(A)
    made.add(B)
    yield made
    engine.dispose()


def ask(store: MqttStore, *requests: tuple[DeviceId, str, str, bytes]) -> list[Answer]:
    return store.answer([Request(*request) for request in requests])


def statuses(store: MqttStore, *requests: tuple[DeviceId, str, str, bytes]) -> list[int]:
    return [answer.status for answer in ask(store, *requests)]


def test_a_batch_is_answered_in_its_order_and_a_bad_request_spoils_no_other(store: MqttStore) -> None:
    asked = [
        (A, "events", "1", b"one"),
        (STRANGER, "events", "1", b"forged"),
        (B, "report", "1", b"not json"),
        (B, "report", "2", b'{"a": 1}'),
        (B, "report", "3", b'{"b": 2, "a": null}'),
        (B, "events", "4", b"two"),
        (B, "events", "5", bytes(EVENT_BYTES_MAX + 1)),
    ]
    assert statuses(store, *asked) == [200, 404, 400, 200, 200, 200, 400]
    events = store.events(0, limit=10)
    assert [(event.offset, event.device_id, event.payload) for event in events] == [(1, A, b"one"), (2, B, b"two")]
    assert store.twin(B).reported == Versioned({"b": 2}, 3)


@pytest.mark.parametrize(
    "patch",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a": "%s"}' % (b"x" * DOCUMENT_BYTES_MAX),
    ],
    ids=["empty", "list", "null", "bytes", "nan", "infinity", "surrogate", "deep", "large"],
)
def test_a_patch_that_is_none_is_refused_and_changes_nothing(store: MqttStore, patch: bytes) -> None:
    assert statuses(store, (A, "report", "1", patch), (A, "get", "2", b"")) == [400, 200]
    assert store.twin(A).reported == Versioned({}, 1)


def test_text_that_databases_dislike_is_kept_or_refused_but_never_breaks_a_batch(store: MqttStore) -> None:
    answers = statuses(store, (A, "report", "1", b'{"a": "\\u0000"}'), (A, "hello", "2", b'{"session": "\\u0000"}'))
    assert answers == [200, 400]
    assert store.twin(A).reported.document == {"a": "\x00"}


def test_presence_is_of_a_session_and_an_old_will_does_not_end_a_new_one(store: MqttStore) -> None:
    assert statuses(store, (A, "hello", "1", b'{"session": "first"}')) == [200]
    assert statuses(store, (A, "hello", "2", b'{"session": "second"}'), (A, "bye", "first", b"")) == [200, 200]
    assert store.is_connected(A)
    ask(store, (A, "bye", "second", b""))
    assert not store.is_connected(A)
    for bad in (b"{}", b'{"session": ""}', b'{"session": 7}', b'{"session": "%s"}' % (b"x" * 100), b"7"):
        assert statuses(store, (A, "hello", "3", bad)) == [400]


def test_a_patch_is_untold_until_the_broker_took_the_newest(store: MqttStore) -> None:
    ask(store, (A, "hello", "1", b'{"session": "first"}'))
    first, second = store.set_desired(A, {"a": 1}), store.set_desired(A, {"a": 2})
    assert store.untold(limit=10) == [A]
    ask(store, (A, "told", str(first), b""))
    assert store.untold(limit=10) == [A]
    ask(store, (A, "told", str(second), b""))
    assert store.untold(limit=10) == []
    store.set_desired(B, {"a": 1})  # offline: it reads its document when it connects
    assert store.untold(limit=10) == []


def test_what_is_unknown_says_so(store: MqttStore) -> None:
    store.remove(A)
    store.remove(A)
    with pytest.raises(UnknownDeviceError):
        store.twin(A)
    with pytest.raises(UnknownDeviceError):
        store.set_desired(A, {})
    with pytest.raises(UnknownDeviceError):
        store.is_connected(A)


def test_a_log_that_is_shorter_than_what_was_read_has_started_over(store: MqttStore) -> None:
    ask(store, (A, "events", "1", b"one"))
    assert store.events(1, limit=10) == []
    with pytest.raises(LogStartedOverError):
        store.events(2, limit=10)


def test_what_was_read_is_dropped_in_the_end_and_offsets_go_on(
    store: MqttStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENTS_KEPT", 10)
    ask(store, *((A, "events", str(number), b"%d" % number) for number in range(50)))
    assert len(store.events(0, limit=100)) == 50  # nothing was said of having read it
    store.events(45, limit=100)
    assert [event.offset for event in store.events(0, limit=100)] == list(range(36, 51))
    ask(store, (A, "events", "x", b"next"))
    assert store.events(50, limit=10)[0].offset == 51


def test_a_full_log_asks_devices_to_keep_theirs(store: MqttStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_MAX", 3)
    requests = [(A, "events", str(number), b"x") for number in range(5)]
    assert statuses(store, *requests) == [200, 200, 200, 429, 429]
    assert statuses(store, (B, "report", "1", b'{"a": 1}')) == [200]
