"""Tables in a terminal: whole ids where there is room, their ends and fewer columns where there is not."""

import io

import pytest
from rich.console import Console

from fleet.rendering import rich_table
from fleet.views.table import Cell, Row, Table

ID = "01a20a07-365c-76a8-b3bd-b49e40aff219"
TABLE = Table.of(
    ("campaign", "task", "state", "comes from", "message"),
    [Row(ID, (Cell(ID), Cell("physio"), Cell("running"), Cell("x" * 30), Cell("several words that may be folded")))],
)


def _shown(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(rich_table(TABLE))
    assert isinstance(console.file, io.StringIO)
    return [line for line in console.file.getvalue().splitlines() if line.strip()]


def test_a_wide_terminal_shows_everything() -> None:
    assert ID in _shown(160)[2]
    assert "several words that may be folded" in _shown(160)[2]


def test_a_narrow_one_shows_the_ids_end_and_keeps_a_row_on_one_line() -> None:
    header, _, row = _shown(80)
    assert "…40aff219" in row
    assert ID not in row
    assert "x" * 30 in row
    assert "message" not in header


@pytest.mark.parametrize("width", range(30, 161, 10))
def test_never_leaves_its_terminal(width: int) -> None:
    assert max(len(line) for line in _shown(width)) <= width
