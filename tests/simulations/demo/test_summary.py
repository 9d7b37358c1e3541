"""The summary: one value, for programs and for people with 80 columns."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from simulations.demo.picture import draw
from simulations.demo.summary import Summary, show
from tests.simulations.demo.examples import summary

PNG = b"\x89PNG\r\n\x1a\n"


def _shown(width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(summary(), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_comes_back_from_its_json() -> None:
    assert Summary.model_validate_json(summary().model_dump_json()) == summary()


def test_shows_every_headline_figure_in_80_columns() -> None:
    shown = _shown(80)
    assert max(len(line) for line in shown.splitlines()) <= 80
    for words in ("0.730", "0.790", "7.99 / 10", "160", "112 MiB", "fp32 10.3 kB, int8 6.1 kB", "1 device healthy"):
        assert words in shown


def test_names_the_unit_that_privacy_protects() -> None:
    assert "epsilon 8 per example" in _shown(80)
    assert "examples" in _shown(80)


@pytest.mark.parametrize("disturbed", [True, False], ids=["one device disturbed", "none disturbed"])
def test_draws_a_picture(tmp_path: Path, disturbed: bool) -> None:
    draw(summary(disturbed=disturbed), tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG)


def test_draws_a_run_without_privacy_and_without_drift_figures(tmp_path: Path) -> None:
    devices = [device.model_copy(update={"epsilon": None, "epsilon_limit": None}) for device in summary().devices]
    draw(summary().model_copy(update={"devices": devices, "drift": {}}), tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG)
