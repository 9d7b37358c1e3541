"""The tiles under the status line: the fleet in four looks."""

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from fleet.fleet_state import FleetState
from fleet.rendering import line, text
from fleet.views.overview import tiles
from fleet.views.table import Cell, Tone


class Tiles(Horizontal):
    """One tile for each panel, in the panels' order."""

    def compose(self) -> ComposeResult:
        for number, (title, _) in enumerate(tiles(FleetState()), start=1):
            yield Static(id=f"tile-{number}", classes="tile", content=text(Cell(f"{number} {title}", Tone.MUTED)))

    def show(self, state: FleetState) -> None:
        for number, (title, cells) in enumerate(tiles(state), start=1):
            heading = text(Cell(f"{number} {title}", Tone.MUTED))
            tile = self.query_one(f"#tile-{number}", Static)
            tile.update(heading.append("\n").append_text(line(cells)))
