"""The tutorial's task, extracted from the page, installed beside us, checked, and trained."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "your_own_task.md"
pytestmark = pytest.mark.processes


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The page's package as an installer leaves it: its module, and its metadata with the entry point."""
    (tmp_path / "pump_task.py").write_text(_block("python"), encoding="utf-8")
    metadata = tmp_path / "pump_task-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pump-task\nVersion: 1.0\n", encoding="utf-8")
    section = re.search(r'\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"', _block("toml"))
    assert section
    (metadata / "entry_points.txt").write_text(f"[{section[1]}]\n{section[2]} = {section[3]}\n", encoding="utf-8")
    return tmp_path


def _task(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shared.tasks", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
    )


def test_the_page_shows_a_whole_task_in_under_80_lines() -> None:
    assert len([line for line in _block("python").splitlines() if line.strip()]) < 80


def test_the_pages_task_is_found_sound_and_writes_a_devices_data(site: Path, tmp_path: Path) -> None:
    assert json.loads(_task(site, "list").stdout)["pump"] == "1"
    checked = _task(site, "check", "pump")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert all(finding["sound"] for finding in json.loads(checked.stdout)["findings"])
    written = json.loads(_task(site, "data", "pump", "--slice", "pump-7", "--out", str(tmp_path / "data")).stdout)
    assert (written["train"], written["held_out"]) == (90, 30)


def test_a_broken_copy_of_the_page_is_called_unsound_with_the_reason(site: Path) -> None:
    source = _block("python").replace("nn.ReLU()", "nn.BatchNorm1d(32)")
    (site / "pump_task.py").write_text(source, encoding="utf-8")
    checked = _task(site, "check", "pump")
    assert checked.returncode == 1
    broken = {
        finding["name"]: finding["message"]
        for finding in json.loads(checked.stdout)["findings"]
        if not finding["sound"]
    }
    assert "BatchNorm" in broken["per-example gradients"]
