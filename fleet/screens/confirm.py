"""Asks before something happens to devices."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from fleet.rendering import lines, text
from fleet.views.table import Cell, Tone


class ConfirmScreen(ModalScreen[bool]):
    """Shows what would happen; dismissed with True for yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "yes"),
        Binding("n,escape", "answer(False)", "no"),
    ]

    def __init__(self, question: str, details: Sequence[Cell] = ()) -> None:
        super().__init__()
        self._question, self._details = question, details

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = self._question
            if self._details:
                yield Static(lines(self._details))
            yield Static(_keys(("y", "yes"), ("n", "no")), classes="keys")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


def _keys(*keys: tuple[str, str]) -> Text:
    parts = []
    for key, meaning in keys:
        parts += [text(Cell(f" {key} ", Tone.ACCENT)), text(Cell(f"{meaning}   "))]
    return Text("").join(parts)
