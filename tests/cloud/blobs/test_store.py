"""The object store: content-addressed, complete or not there, verified when read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.blobs.store import CHUNK_BYTES, BlobStore, CorruptObjectError, UnknownObjectError
from shared.ids import Digest, InvalidIdError


@given(payload=st.binary(max_size=2000), start=st.integers(0, 2100), end=st.integers(0, 2100))
def test_a_range_is_that_part_of_what_was_put(payload: bytes, start: int, end: int) -> None:
    store = BlobStore("memory://ranges")
    ref = store.put(payload)
    assert b"".join(store.open_range(ref.digest, start, end=end)) == payload[start : max(start, end)]
    assert (store.get(ref.digest), store.size(ref.digest)) == (payload, ref.size_bytes)


def test_a_file_of_several_chunks_is_the_same_object_as_its_bytes(tmp_path: Path) -> None:
    store, payload = BlobStore(str(tmp_path / "blobs")), b"ab" * CHUNK_BYTES
    source = tmp_path / "source"
    source.write_bytes(payload)
    assert store.put_file(source) == store.put(payload)
    assert store.get(store.put(payload).digest) == payload


def test_a_changed_byte_on_disk_is_noticed(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    ref = store.put(b"weights")
    (tmp_path / ref.digest[:2] / ref.digest).write_bytes(b"Weights")
    with pytest.raises(CorruptObjectError):
        store.get(ref.digest)


def test_an_unknown_object_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnknownObjectError):
        BlobStore(str(tmp_path)).open_range(Digest("0" * 64), 0)


def test_a_digest_is_never_a_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidIdError):
        BlobStore(str(tmp_path)).exists(Digest("../../etc/passwd"))


def test_nothing_but_objects_stays_behind_when_a_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(str(tmp_path))

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        store.put(b"weights")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
