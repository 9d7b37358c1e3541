"""What the keys do and what the marks mean."""

from typing import ClassVar

from rich.table import Table
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from fleet.rendering import text
from fleet.views.table import Cell, Tone

KEYS = (
    ("1 2 3 4", "go to devices, training, rollout, alerts"),
    ("tab", "next panel"),
    ("enter", "open the device under the cursor"),
    ("/", "filter devices by words; escape ends it"),
    ("s", "sort devices by the next column"),
    ("n", "new rollout: choose a release, see the plan, start it"),
    ("g", "start the planned rollout"),
    ("x", "stop the rollout"),
    ("e", "resume the halted rollout"),
    ("c", "close the alert under the cursor"),
    ("r", "look again now"),
    ("q", "quit"),
)
MARKS = (
    (Cell("● online", Tone.GOOD), "heard from within three heartbeats"),
    (Cell("○ silent", Tone.WARN), "enrolled, and not heard from lately"),
    (Cell("▲ drift", Tone.BAD), "a feature's recent distribution left the reference"),
    (Cell("ε", Tone.ACCENT), "privacy left of the owner's limit on that device"),
)


class HelpScreen(ModalScreen[None]):
    """Closed by any of its keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "dismiss(None)", "back")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog help") as dialog:
            dialog.border_title = "Keys and marks"
            yield Static(_drawn())


def _drawn() -> Table:
    drawn = Table.grid(padding=(0, 2))
    for key, meaning in KEYS:
        drawn.add_row(text(Cell(key, Tone.ACCENT)), text(Cell(meaning)))
    drawn.add_row("", "")
    for mark, meaning in MARKS:
        drawn.add_row(text(mark), text(Cell(meaning)))
    return drawn
