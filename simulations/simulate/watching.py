"""The progress bar: rounds a second, time left, the accuracy so far; Ctrl-C ends the run after its round."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isnan
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from simulations.rounds.record import RoundRecord


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} rounds/s" if speed else "", style="bright_black")


class ProgressWatcher:
    """Shows one bar for each seed.

    Args:
        progress: Started and stopped by the caller.
        rounds: Of the experiment.
    """

    def __init__(self, progress: Progress, *, rounds: int) -> None:
        self._progress = progress
        self._rounds = rounds
        self._tasks: dict[int, TaskID] = {}
        self._told: set[str] = set()
        self.is_stopping = False

    def started(self, seed: int, *, rounds_done: int, notes: tuple[str, ...]) -> None:
        self.tell(notes)
        self._tasks[seed] = self._progress.add_task(f"seed {seed}", total=self._rounds, completed=rounds_done, shown="")

    def tell(self, notes: Iterable[str]) -> None:
        """Shows what was not shown before."""
        for note in notes:
            if note not in self._told:
                self._progress.console.print(f"[bright_black]· {note}[/]", highlight=False)
                self._told.add(note)

    def finished_round(self, seed: int, record: RoundRecord) -> None:
        task = self._tasks[seed]
        self._progress.update(task, completed=record.round)
        if not isnan(record.test_accuracy):
            self._progress.update(task, shown=f"accuracy {record.test_accuracy:.3f}")

    def wants_to_stop(self) -> bool:
        return self.is_stopping


def progress_on(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn("[cyan]{task.fields[shown]}[/]"),
        _Rate(),
        TimeRemainingColumn(compact=True),
        console=console,
        expand=True,
    )


@contextmanager
def stopping_on_interrupt(watcher: ProgressWatcher, console: Console) -> Iterator[None]:
    """The first Ctrl-C asks for the end after the round, the second does not wait."""

    def ask(signal_number: int, frame: FrameType | None) -> None:
        if watcher.is_stopping:
            raise KeyboardInterrupt
        watcher.is_stopping = True
        console.print("Stopping after this round; Ctrl-C again stops at once.")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
