"""From views to Rich: the one place where a cell gets its colour and loses what could steer a terminal."""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from fleet.formats import printable
from fleet.palette import COLOURS, MUTED
from fleet.views.table import Cell, Table, Tone, compact


def text(cell: Cell, *, width: int | None = None) -> Text:
    """The cell as styled text on one line, at most `width` characters."""
    style = f"bold {COLOURS[cell.tone]}" if cell.tone is Tone.STRONG else COLOURS[cell.tone]
    styled = Text(printable(cell.text), style=style, no_wrap=True, end="")
    if width is not None:
        styled.truncate(width, overflow="ellipsis")
    return styled


def line(cells: Iterable[Cell], *, separator: str = "  ") -> Text:
    """Cells side by side."""
    return Text(separator, end="").join([text(cell) for cell in cells])


def lines(cells: Iterable[Cell]) -> Text:
    """Cells one under the other."""
    return Text("\n").join([text(cell) for cell in cells])


def rich_table(table: Table) -> RichTable:
    """The table for a terminal, without columns that say nothing; the last one wraps, ids never do."""
    shown = compact(table)
    drawn = RichTable(box=SIMPLE_HEAD, header_style=f"bold {MUTED}", border_style=MUTED, pad_edge=False)
    for index, name in enumerate(shown.columns):
        drawn.add_column(name, overflow="fold", no_wrap=index < len(shown.columns) - 1)
    for row in shown.rows:
        *cells, last = [text(cell) for cell in row.cells]
        last.no_wrap = False
        drawn.add_row(*cells, last)
    return drawn


def rich_facts(facts: Sequence[tuple[str, Cell]]) -> RichTable:
    """Names and values in two columns."""
    drawn = RichTable.grid(padding=(0, 2))
    drawn.add_column(style=MUTED, no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, cell in facts:
        value = text(cell)
        value.no_wrap = False
        drawn.add_row(printable(name), value)
    return drawn
