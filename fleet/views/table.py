"""What a view is made of: cells with a tone, rows with a key, tables that can be filtered and sorted."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Tone(StrEnum):
    """What a cell means; a palette turns it into a colour."""

    PLAIN = "plain"
    STRONG = "strong"
    MUTED = "muted"
    ACCENT = "accent"
    GOOD = "good"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Cell:
    """A piece of text, what it means, and what it sorts by (its text where nothing is given)."""

    text: str
    tone: Tone = Tone.PLAIN
    order: float | None = None


@dataclass(frozen=True)
class Row:
    """One thing, by its id, and its cells in the order of the columns."""

    key: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Columns and rows."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...] = ()

    @classmethod
    def of(cls, columns: Iterable[str], rows: Iterable[Row]) -> "Table":
        return cls(tuple(columns), tuple(rows))


NOTHING = Cell("–", Tone.MUTED)


def filtered(table: Table, words: str) -> Table:
    """The rows in which every word occurs somewhere, upper or lower case; all of them for no words."""
    wanted = words.casefold().split()
    return replace(table, rows=tuple(row for row in table.rows if all(word in _haystack(row) for word in wanted)))


def ordered(table: Table, column: int | None) -> Table:
    """The rows by this column; equal ones stay as they were. None leaves the table as it is."""
    if column is None or not 0 <= column < len(table.columns):
        return table
    return replace(table, rows=tuple(sorted(table.rows, key=lambda row: _sort_key(row.cells[column]))))


def compact(table: Table) -> Table:
    """The table without columns in which no row says anything; the first always stays."""
    shown = [
        index
        for index in range(len(table.columns))
        if index == 0 or any(row.cells[index].text.strip(" –") for row in table.rows)
    ]
    rows = (Row(row.key, tuple(row.cells[index] for index in shown)) for row in table.rows)
    return Table.of((table.columns[index] for index in shown), rows)


def _haystack(row: Row) -> str:
    return " ".join([row.key, *(cell.text for cell in row.cells)]).casefold()


def _sort_key(cell: Cell) -> tuple[bool, float, str]:
    # Numbers come before text; text sorts as people read it.
    return (cell.order is None, 0.0 if cell.order is None else cell.order, cell.text.casefold())
