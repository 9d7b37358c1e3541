"""The page's cells, run in order as a notebook would; its files, read as the command reads them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.experiments.file import read_experiment
from simulations.sweeps.settings import read_sweep

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "simulate.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_cells_run_in_order_and_say_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    cells: dict[str, object] = {}
    for cell in _blocks("python"):
        exec(compile(cell, "simulate.md", "exec"), cells)  # noqa: S102  # our own page
    assert cells["result"]._repr_html_().count("<figure") > 3  # type: ignore[attr-defined]  # as a notebook shows it
    told = capsys.readouterr().out
    assert float(re.findall(r"accuracy (0\.\d+)", told)[0]) > 0.5
    assert "cohort.clients: Expected at most 20" in told


def test_the_files_are_an_experiment_and_a_sweep_of_it(tmp_path: Path) -> None:
    experiment, sweep = _blocks("toml")
    (tmp_path / "digits.toml").write_text(experiment, encoding="utf-8")
    (tmp_path / "sweep.toml").write_text(sweep, encoding="utf-8")
    assert read_experiment(tmp_path / "digits.toml").seeds == (0, 1, 2)
    assert read_sweep(tmp_path / "sweep.toml").experiment == (tmp_path / "digits.toml").resolve()


def test_the_reference_has_every_key() -> None:
    """Written by `python -m tests.docs.experiment_reference`."""
    # In a process of its own: CPython 3.11 miscounts while it parses if a thread that an earlier test left prints a
    # traceback meanwhile, which parses too (gh-106905).
    program = "from tests.docs.experiment_reference import page; print(page(), end='')"
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == (ROOT / "docs" / "reference" / "experiment.md").read_text(encoding="utf-8")
