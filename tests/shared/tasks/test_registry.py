"""Tasks are found by entry point, cheaply, and a wrong name is answered with what there is."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from shared.tasks import registry
from shared.tasks.registry import UnknownTaskError, installed_tasks, load_task


def test_finds_the_reference_tasks_with_their_versions() -> None:
    installed = installed_tasks()
    assert installed["digits"] == load_task("digits").version
    assert installed["physio"] == load_task("physio").version


def test_refuses_an_unknown_task_and_names_the_installed_ones() -> None:
    with pytest.raises(UnknownTaskError, match=r"digits.*physio.*got 'weather'") as caught:
        load_task("weather")
    assert "fleetlearn.tasks" in caught.value.hint


def test_listing_tasks_imports_no_heavy_library() -> None:
    code = (
        "import sys; from shared.tasks.registry import installed_tasks, load_task; installed_tasks();"
        "[load_task(name).schema for name in ('digits', 'physio', 'physio_trees')];"
        "print(sorted({'torch', 'pandas', 'sklearn', 'scipy', 'seglearn', 'flwr', 'opacus'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_task_that_cannot_be_imported_is_left_out_of_the_list_and_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = EntryPoint(name="broken", value="no_such_module:TASK", group=registry.GROUP)
    renamed = EntryPoint(name="other", value="shared.tasks.digits:TASK", group=registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken, renamed])
    assert installed_tasks() == {}
    with pytest.raises(UnknownTaskError, match="no_such_module"):
        load_task("broken")
    with pytest.raises(UnknownTaskError, match="named like its entry point 'other', got 'digits'"):
        load_task("other")
