"""Chooses the release of a new rollout."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from fleet.rendering import text
from fleet.views.registry import release_table
from fleet.views.table import Cell, Tone
from fleet.widgets.view_table import ViewTable
from shared.api.releases import Release


class ReleasesScreen(ModalScreen[str | None]):
    """Published releases, newest first; dismissed with the chosen one's id, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss(None)", "back")]

    def __init__(self, releases: Sequence[Release], *, now: float) -> None:
        super().__init__()
        self._releases, self._now = releases, now

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as dialog:
            dialog.border_title = "Roll out which release?"
            yield ViewTable(id="releases-table", width_max=36)
            yield Static(text(Cell("enter plans it and shows the plan; nothing moves yet", Tone.MUTED)), classes="keys")

    def on_mount(self) -> None:
        self.query_one(ViewTable).show(release_table(self._releases, now=self._now))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        self.dismiss(event.row_key.value)
