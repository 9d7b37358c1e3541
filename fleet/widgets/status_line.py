"""The first line: which coordinator, and whether it answers."""

from rich.text import Text
from textual.widgets import Static

from fleet import link
from fleet.link import Link
from fleet.rendering import line
from fleet.views.table import Cell, Tone


class StatusLine(Static):
    """`◆ fleetlearn   https://…   ● live`."""

    def show(self, state: Link, *, url: str, now: float) -> None:
        cells = [Cell("◆ fleetlearn", Tone.ACCENT), link.badge(state, now=now), Cell(url, Tone.MUTED)]
        self.update(Text(" ").append_text(line(cells, separator="   ")))
