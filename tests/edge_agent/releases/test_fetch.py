"""Laws of the download: however the connection behaves, a part is a beginning of the file, and what is done is it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.releases.errors import FetchError, IncompleteDownloadError, WrongHashError, WrongLengthError
from edge_agent.releases.fetch import CONTINUATIONS_MAX, download, matches
from edge_agent.releases.trust import SignedFile


def _signed(payload: bytes) -> SignedFile:
    sha256 = hashlib.sha256(payload).hexdigest()
    return SignedFile("model.onnx", f"targets/{sha256}.model.onnx", sha256, len(payload))


class Line:
    """A connection that gives, one call after another, so many bytes before it breaks in some way."""

    def __init__(self, payload: bytes, cuts: list[int], error: type[Exception] | None = ConnectionResetError) -> None:
        self.payload = payload
        self.cuts = list(cuts)
        self.error = error
        self.offsets: list[int] = []

    def get(self, path: str, *, offset: int, bytes_max: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        if not self.cuts:
            yield self.payload[offset:]
            return
        yield self.payload[offset : offset + self.cuts.pop(0)]
        if self.error is not None:
            raise self.error("broken")


@given(payload=st.binary(max_size=300), cuts=st.lists(st.integers(0, 100), max_size=30))
@settings(max_examples=100)
def test_any_sequence_of_breaks_ends_with_the_file(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("downloads")
    file, line = _signed(payload), Line(payload, cuts)
    for _ in range(len(cuts) + 1):
        try:
            done = download(line, file, folder=folder)
            break
        except FetchError:
            partial = folder / f"{file.sha256}.part"
            kept = partial.read_bytes() if partial.exists() else b""
            assert payload.startswith(kept)
    assert done.read_bytes() == payload
    assert sorted(line.offsets) == line.offsets, "nothing is asked for twice"


def test_breaks_in_one_call_are_bounded(tmp_path: Path) -> None:
    line = Line(b"x" * 1000, [1] * 1000)
    with pytest.raises(IncompleteDownloadError, match=f"after {1 + CONTINUATIONS_MAX} tries"):
        download(line, _signed(b"x" * 1000), folder=tmp_path)
    assert len(line.offsets) == 1 + CONTINUATIONS_MAX


@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError, OSError, BrokenPipeError])
def test_only_our_errors_come_out_even_while_iterating(tmp_path: Path, error: type[Exception]) -> None:
    with pytest.raises(FetchError, match="broken") as caught:
        download(Line(b"payload", [0, 0], error), _signed(b"payload"), folder=tmp_path)
    assert caught.value.is_worth_retrying


def test_a_server_that_ignores_the_offset_is_found_out(tmp_path: Path) -> None:
    payload = bytes(range(200))
    file = _signed(payload)
    (tmp_path / f"{file.sha256}.part").write_bytes(payload[:150])

    class Ignorant(Line):
        def get(self, path: str, *, offset: int, bytes_max: int) -> Iterator[bytes]:
            yield self.payload

    with pytest.raises(WrongLengthError, match="Expected 200 bytes"):
        download(Ignorant(payload, []), file, folder=tmp_path)
    assert download(Line(payload, []), file, folder=tmp_path).read_bytes() == payload


@given(payload=st.binary(min_size=1, max_size=100), position=st.integers(0, 99), bit=st.integers(0, 7))
def test_no_flipped_bit_gets_through(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes, position: int, bit: int
) -> None:
    changed = bytearray(payload)
    changed[position % len(payload)] ^= 1 << bit
    folder = tmp_path_factory.mktemp("downloads")
    with pytest.raises(WrongHashError, match=r"Expected model\.onnx with SHA-256"):
        download(Line(bytes(changed), []), _signed(payload), folder=folder)
    assert list(folder.iterdir()) == [], "wrong bytes are not kept"


def test_a_part_longer_than_the_file_does_not_stop_it_for_ever(tmp_path: Path) -> None:
    file = _signed(b"short")
    (tmp_path / f"{file.sha256}.part").write_bytes(b"much longer than it should be")
    assert download(Line(b"short", []), file, folder=tmp_path).read_bytes() == b"short"


def test_a_file_that_is_there_is_not_fetched(tmp_path: Path) -> None:
    file = _signed(b"payload")
    (tmp_path / file.sha256).write_bytes(b"payload")
    line = Line(b"", [])
    assert matches(download(line, file, folder=tmp_path), sha256=file.sha256, size_bytes=7)
    assert line.offsets == []
