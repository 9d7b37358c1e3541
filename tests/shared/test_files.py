from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.files import replacing, write_atomically


def test_a_file_is_replaced_whole_with_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_atomically(path, b"an old and longer key")
    write_atomically(path, b"a key", mode=0o600)

    assert path.read_bytes() == b"a key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_atomically(path, b"old")

    with pytest.raises(ConnectionError), replacing(path) as file:
        file.writelines(_broken_off())

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _broken_off() -> Iterator[bytes]:
    yield b"half of the n"
    raise ConnectionError


def test_writers_with_drafts_of_their_own_do_not_meet_and_the_last_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "object"
    with replacing(path, draft="first") as first:
        with replacing(path, draft="second") as second:
            first.write(b"of the first")
            second.write(b"of the second")
        assert path.read_bytes() == b"of the second"

    assert path.read_bytes() == b"of the first"
    assert list(tmp_path.iterdir()) == [path]
