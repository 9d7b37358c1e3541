"""A table that shows a view and changes only what changed, so that the cursor and the scroll position stay."""

from textual.widgets import DataTable
from textual.widgets.data_table import RowDoesNotExist

from fleet.rendering import text
from fleet.views.table import Row, Table, compact


class ViewTable(DataTable[object]):
    """Shows a `fleet.views.table.Table`, columns that say nothing left out; rows keep their key."""

    def __init__(self, *, id: str, width_max: int = 64) -> None:  # Textual's own name
        super().__init__(id=id, cursor_type="row", zebra_stripes=False)
        self._width_max = width_max
        self._shown = Table(())

    @property
    def selected_key(self) -> str | None:
        """The key of the row under the cursor."""
        rows = self._shown.rows
        return rows[self.cursor_row].key if 0 <= self.cursor_row < len(rows) else None

    @property
    def shown(self) -> Table:
        """What is on the screen."""
        return self._shown

    def show(self, table: Table) -> None:
        """Draws the table in place of the one before."""
        shown = compact(table)
        if shown == self._shown:
            return
        if _keys(shown) == _keys(self._shown) and shown.columns == self._shown.columns:
            self._update(shown)
        else:
            self._rebuild(shown)

    def _update(self, shown: Table) -> None:
        for before, after in zip(self._shown.rows, shown.rows, strict=True):
            for name, old, new in zip(shown.columns, before.cells, after.cells, strict=True):
                if old != new:
                    self.update_cell(after.key, name, text(new, width=self._width_max), update_width=True)
        self._shown = shown

    def _rebuild(self, shown: Table) -> None:
        selected, scroll = self.selected_key, self.scroll_y
        self.clear(columns=True)
        for name in shown.columns:
            self.add_column(name, key=name)
        for row in shown.rows:
            self.add_row(*self._drawn(row), key=row.key)
        self._shown = shown
        if selected is not None:
            self._select(selected)
            self.scroll_to(y=scroll, animate=False)

    def _drawn(self, row: Row) -> list[object]:
        return [text(cell, width=self._width_max) for cell in row.cells]

    def _select(self, key: str) -> None:
        try:
            self.move_cursor(row=self.get_row_index(key), animate=False)
        except RowDoesNotExist:
            return  # The row is gone; the cursor starts again at the top.


def _keys(table: Table) -> list[str]:
    return [row.key for row in table.rows]
