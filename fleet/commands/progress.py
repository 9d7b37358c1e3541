"""Progress of work in the cloud on standard error, so that standard output stays the answer's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from fleet import formats
from fleet.commands.common import Output
from fleet.palette import ACCENT, BLUE
from fleet.rendering import line
from fleet.views import campaigns as views
from fleet.views.registry import job_fraction
from fleet.views.table import Cell, Tone
from shared.api.campaigns import Campaign, Round
from shared.api.jobs import Job


@contextmanager
def job_progress(output: Output, title: str) -> Iterator[Callable[[Job], None]]:
    """Yields a function that shows how far the job is."""
    with _progress(output) as progress:
        bar = progress.add_task(title, total=1.0, step="queued")

        def update(job: Job) -> None:
            step = formats.printable(str(job.progress.get("step", job.state.value)))
            done = 1.0 if job.finished_at is not None else job_fraction(job)
            progress.update(bar, completed=done, step=step)

        yield update


@contextmanager
def campaign_progress(output: Output) -> Iterator[Callable[[Campaign], None]]:
    """Yields a function that shows the rounds, and prints a line for each that ended."""
    with _progress(output) as progress:
        bar = progress.add_task("campaign", total=1.0, step="queued")
        told: set[tuple[int, int]] = set()

        def update(campaign: Campaign) -> None:
            for round_ in sorted(campaign.history, key=lambda round_: (round_.round, round_.attempt)):
                if round_.finished_at is not None and (round_.round, round_.attempt) not in told:
                    told.add((round_.round, round_.attempt))
                    progress.console.print(_round_line(round_))
            step = f"round {views.rounds_text(campaign)}  {views.accuracy_sparkline(campaign)}"
            progress.update(bar, completed=views.progress(campaign), step=step)

        yield update


def _round_line(round_: Round) -> Text:
    done = sum(outcome.status == "done" for outcome in round_.devices)
    took = (round_.finished_at or round_.started_at) - round_.started_at
    return line(
        [
            Cell(f"round {round_.round:>3}", Tone.STRONG),
            Cell(formats.percent(round_.accuracy).rjust(7), Tone.ACCENT),
            Cell(f"{done}/{len(round_.devices)} devices", Tone.GOOD if done == len(round_.devices) else Tone.WARN),
            Cell(f"↓ {formats.size(round_.bytes_down)}  ↑ {formats.size(round_.bytes_up)}", Tone.MUTED),
            Cell(formats.duration(took), Tone.MUTED),
            Cell(round_.reason, Tone.WARN),
        ]
    )


def _progress(output: Output) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=28, complete_style=BLUE, finished_style=ACCENT),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[step]}", markup=False),
        TimeElapsedColumn(),
        console=output.notes,
    )
