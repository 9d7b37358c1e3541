"""Whether the coordinator answers, as a value: the first miss is told once, and so is the recovery. Pure."""

from dataclasses import dataclass, replace

from fleet import formats
from fleet.views.table import Cell, Tone


@dataclass(frozen=True)
class Link:
    """What a row of tries came to."""

    answered_at: float | None = None
    """When it last answered."""
    away_since: float | None = None
    """When it first did not, since then."""
    problem: str = ""
    """Why not, in one sentence."""

    @property
    def is_up(self) -> bool:
        return self.answered_at is not None and self.away_since is None


def after_answer(link: Link, *, now: float) -> tuple[Link, str]:
    """The link after an answer, and what to tell the operator, if anything."""
    told = (
        ""
        if link.away_since is None
        else f"The coordinator answers again, after {formats.span(now - link.away_since)}."
    )
    return Link(answered_at=now), told


def after_miss(link: Link, problem: str, *, now: float) -> tuple[Link, str]:
    """The link after a failure, and what to tell the operator: the first of a row, not each."""
    if link.away_since is not None:
        return replace(link, problem=problem), ""
    return replace(link, away_since=now, problem=problem), problem


def badge(link: Link, *, now: float) -> Cell:
    """The link in the status line; while it is away, the age of what is shown."""
    if link.away_since is not None:
        age = "nothing seen yet" if link.answered_at is None else f"showing {formats.ago(link.answered_at, now=now)}"
        return Cell(f"✕ away for {formats.span(now - link.away_since)}, {age}", Tone.BAD)
    if link.answered_at is None:
        return Cell("○ connecting", Tone.MUTED)
    return Cell("● live", Tone.GOOD)
