"""From views to Rich: the one place where a cell gets its colour and loses what could steer a terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from fleet import formats
from fleet.formats import printable
from fleet.palette import COLOURS, MUTED
from fleet.views.table import Cell, Row, Table, Tone, compact

_LAST_WIDTH_MIN = 24
_COLUMNS_MIN = 3


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


class FittedTable:
    """A table that shows what its terminal has room for: whole ids and all columns, or ids by their ends and fewer."""

    def __init__(self, table: Table) -> None:
        self._table = compact(table)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._fitted(options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._fitted(options))

    def _fitted(self, options: ConsoleOptions) -> RichTable:
        if _width(self._table, gap=3) <= options.max_width:
            return _drawn(self._table, tight=False)
        shown = _with_short_ids(self._table)
        while _width(shown, gap=2) > options.max_width and len(shown.columns) > _COLUMNS_MIN:
            shown = _without_last_column(shown)
        return _drawn(shown, tight=True)


def rich_table(table: Table) -> FittedTable:
    """The table for a terminal, without columns that say nothing; the last one wraps."""
    return FittedTable(table)


def _drawn(table: Table, *, tight: bool) -> RichTable:
    drawn = RichTable(
        box=SIMPLE_HEAD,
        header_style=f"bold {MUTED}",
        border_style=MUTED,
        pad_edge=False,
        padding=(0, 1, 0, 0) if tight else (0, 1),
    )
    last = len(table.columns) - 1
    for index, name in enumerate(table.columns):
        wraps = index == last
        drawn.add_column(name, overflow="fold", no_wrap=not wraps)
    for row in table.rows:
        *cells, final = [text(cell) for cell in row.cells]
        final.no_wrap = False
        drawn.add_row(*cells, final)
    return drawn


def _width(table: Table, *, gap: int) -> int:
    """Columns of a terminal that it takes: each at its widest, the last one at least `_LAST_WIDTH_MIN` of its own."""
    widths = [
        max(cell_len(name), *(cell_len(row.cells[index].text) for row in table.rows)) if table.rows else cell_len(name)
        for index, name in enumerate(table.columns)
    ]
    edges = 2
    return sum(widths[:-1]) + min(widths[-1], _LAST_WIDTH_MIN) + gap * (len(widths) - 1) + edges


def _with_short_ids(table: Table) -> Table:
    rows = (
        Row(row.key, tuple(replace(cell, text=formats.short_uuid(cell.text)) for cell in row.cells))
        for row in table.rows
    )
    return Table.of(table.columns, rows)


def _without_last_column(table: Table) -> Table:
    return Table.of(table.columns[:-1], (Row(row.key, row.cells[:-1]) for row in table.rows))


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
