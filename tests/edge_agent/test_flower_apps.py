"""Which apps a running agent tells of, as its owner changes the folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.flower_apps import AppsHere
from shared import flower_apps
from shared.flower_apps import FlowerApp, read_app

APPS = Path(__file__).parents[1] / "flower_apps"


def _install(folder: Path, name: str = "numpy-state") -> Path:
    return Path(shutil.copytree(APPS / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")))


def _other_bytes_of_the_same_size_and_time(app: Path) -> None:
    client = app / "numpystate" / "client_app.py"
    status = client.stat()
    client.write_text(client.read_text().replace("+ 1", "+ 2"))
    assert client.stat().st_size == status.st_size
    os.utime(client, ns=(status.st_atime_ns, status.st_mtime_ns))


def _one_more_file(app: Path) -> None:
    (app / "numpystate" / "more.py").write_text("")


def _one_file_less(app: Path) -> None:
    next((app / "numpystate").glob("*.py")).unlink()


@pytest.mark.parametrize("change", [_other_bytes_of_the_same_size_and_time, _one_more_file, _one_file_less])
def test_an_app_is_told_once_it_is_there_with_each_change_and_no_more_once_it_is_gone(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    apps = AppsHere(tmp_path)
    apps.look()
    assert apps.contents == {}

    installed = read_app(_install(tmp_path))
    apps.look()
    assert apps.contents == {installed.task: installed.content}

    change(installed.folder)
    apps.look()
    changed = read_app(installed.folder)
    assert changed.content != installed.content
    assert apps.contents == {installed.task: changed.content}

    shutil.rmtree(installed.folder)
    apps.look()
    assert apps.contents == {}


def test_an_app_behind_a_link_is_told_and_its_changes_too(tmp_path: Path) -> None:
    elsewhere, folder = _install(tmp_path / "elsewhere"), tmp_path / "apps"
    folder.mkdir()
    apps = AppsHere(folder)
    (folder / "linked").symlink_to(elsewhere)
    apps.look()
    before = dict(apps.contents)
    _one_more_file(elsewhere)
    apps.look()

    assert list(before) == ["flower:flwrlabs/numpy-state"]
    assert apps.contents != before


def test_nothing_is_read_again_where_nothing_of_an_app_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = _install(tmp_path)
    apps, reads = AppsHere(tmp_path), list[Path]()

    def counted(folder: Path) -> FlowerApp:
        reads.append(folder)
        return read_app(folder)

    monkeypatch.setattr(flower_apps, "read_app", counted)
    for _ in range(3):
        apps.look()
        (installed / "__pycache__").mkdir(exist_ok=True)
        (installed / "__pycache__" / "x.pyc").write_bytes(b"x")

    assert reads == [installed]


def test_a_folder_that_is_not_there_yet_has_no_apps(tmp_path: Path) -> None:
    apps = AppsHere(tmp_path / "apps")
    apps.look()
    assert apps.contents == {}
    _install(tmp_path / "apps")
    apps.look()
    assert len(apps.contents) == 1
    AppsHere(None).look()
