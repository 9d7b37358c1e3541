"""What the demonstration's steps share: settings, the operator's client, processes, and a screen to tell people."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from fleet.client import CoordinatorClient
from fleet.waiting import Patience
from shared.tasks.task import Task
from simulations.demo.processes import Processes

PATIENCE = Patience(timeout_s=600, away_s_max=30, poll_s=0.2)


@dataclass(frozen=True)
class DemoDevice:
    """One demonstration device: its folders, and the natural devices whose data it holds."""

    device_id: str
    folder: Path
    slices: tuple[str, ...]

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"


@dataclass(frozen=True)
class Stage:
    """One run."""

    task: Task
    devices: tuple[DemoDevice, ...]
    rounds: int
    epsilon: float | None
    address: str
    data_dir: Path
    console: Console
    processes: Processes
    client: CoordinatorClient
    step_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def cloud_dir(self) -> Path:
        return self.data_dir / "cloud"

    @contextmanager
    def step(self, title: str) -> Iterator["Bar"]:
        """Times a step and shows its progress; a failure leaves the bar where it stood."""
        started = time.monotonic()
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[note]}", style="dim", table_column=Column(ratio=1, no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
        )
        with Progress(*columns, console=self.console, expand=True) as progress:
            bar = Bar(progress, progress.add_task(title, total=1.0, note=""))
            yield bar
            bar.show(1.0)
        self.step_seconds[title] = round(time.monotonic() - started, 2)


@dataclass(frozen=True)
class Bar:
    """A step's progress bar."""

    progress: Progress
    task_id: int

    def show(self, fraction: float, note: str | None = None) -> None:
        fields = {} if note is None else {"note": note}
        self.progress.update(self.task_id, completed=fraction, **fields)  # type: ignore[arg-type]  # TaskID is an int
