import os
import shutil
from pathlib import Path

import pytest

from shared.flower_apps import (
    FlowerAppNotInstalledError,
    InvalidFlowerAppError,
    find_app,
    installed_apps,
    read_app,
    run_config,
)

APPS = Path(__file__).parents[1] / "flower_apps"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "apps" / "xgb"
    shutil.copytree(APPS / "quickstart-xgboost", copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def test_an_app_says_who_it_is_and_what_it_takes() -> None:
    app = read_app(APPS / "quickstart-xgboost")

    assert (app.name, app.version, app.task) == (
        "flwrlabs/quickstart-xgboost",
        "1.0.0",
        "flower:flwrlabs/quickstart-xgboost",
    )
    assert (app.serverapp, app.clientapp) == ("xgboostexample.server_app:app", "xgboostexample.client_app:app")
    assert app.config["params.max-depth"] == 3  # tables are flat, as Flower has them
    assert app.content == f"1.0.0+{app.digest[:12]}"


def test_two_copies_are_one_app_whatever_was_built_or_hidden_beside_it(folder: Path) -> None:
    (folder / "xgboostexample" / "__pycache__").mkdir()
    (folder / "xgboostexample" / "__pycache__" / "task.pyc").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")

    assert read_app(folder).digest == read_app(APPS / "quickstart-xgboost").digest


@pytest.mark.parametrize("change", ["edit", "add", "rename", "remove"])
def test_any_change_of_a_file_is_another_app(folder: Path, change: str) -> None:
    before = read_app(folder).digest
    task = folder / "xgboostexample" / "task.py"
    match change:
        case "edit":
            task.write_text(task.read_text() + "\n")
        case "add":
            (folder / "data.csv").write_text("1")
        case "rename":
            task.rename(task.with_name("task2.py"))
        case _:
            task.unlink()

    assert read_app(folder).digest != before


def test_what_is_no_app_says_what_is_missing(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InvalidFlowerAppError, match=r"a folder with a pyproject\.toml"):
        read_app(tmp_path / "nothing")
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace("publisher", "published-by"))
    with pytest.raises(InvalidFlowerAppError, match="'publisher' is missing"):
        read_app(folder)
    assert installed_apps(folder.parent) == []  # and is no reason for an agent not to start


@pytest.mark.parametrize("config", ["config = 3", 'config = "x"', "config = [1]"])
def test_an_app_whose_configuration_is_no_table_is_left_out(folder: Path, config: str) -> None:
    project = folder / "pyproject.toml"
    text = project.read_text().partition("[tool.flwr.app.config]")[0]
    project.write_text(text.replace("[tool.flwr.app]", f"[tool.flwr.app]\n{config}"))
    assert installed_apps(folder.parent) == []


def test_an_app_whose_files_have_names_that_are_no_text_is_left_out(folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/\xff.py")).write_text("x")
    assert installed_apps(folder.parent) == []


def test_an_app_of_too_many_bytes_is_refused(folder: Path) -> None:
    (folder / "data.bin").write_bytes(bytes(11 * 1024 * 1024))
    with pytest.raises(InvalidFlowerAppError, match="at most"):
        read_app(folder)


def test_the_app_with_just_that_content_is_found_beside_another_version(folder: Path) -> None:
    first = read_app(folder)
    second = folder.parent / "xgb-new"
    shutil.copytree(folder, second)
    (second / "README.md").write_text("New")

    found = find_app(folder.parent, name=first.name, version=first.version, digest=read_app(second).digest)

    assert found.folder == second
    with pytest.raises(FlowerAppNotInstalledError, match=rf"got {first.content.replace('+', '[+]')}, 1\.0\.0"):
        find_app(folder.parent, name=first.name, version="2", digest=first.digest)
    assert installed_apps(None) == []


def test_a_run_overrides_what_the_app_has_in_its_own_types() -> None:
    app = read_app(APPS / "quickstart-xgboost")

    config = run_config(app, {"num-server-rounds": "5", "params.eta": "0.1", "params.objective": "x"})

    assert (config["num-server-rounds"], config["params.eta"], config["params.nthread"]) == (5, 0.1, 1)
    with pytest.raises(InvalidFlowerAppError, match=r"num-server-rounds, params\.eta"):
        run_config(app, {"rounds": "5"})
    with pytest.raises(InvalidFlowerAppError, match="'num-server-rounds' as int, got 'many'"):
        run_config(app, {"num-server-rounds": "many"})
    clock = read_app(APPS / "numpy-state")
    assert run_config(clock, {"use-clock": "True"})["use-clock"] is True
