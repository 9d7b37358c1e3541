"""The frame of every bench: cases measured in turn, medians, a table for people, one object for programs.

Ours and the baselines take turns within each repetition, so that a noisy moment of the machine hits all of them.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Measure = Callable[[], Mapping[str, float]]
"""One repetition of one case: figures by name."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class BenchOptions:
    """How thorough a run is."""

    is_quick: bool = False
    """Just long enough to see that the bench works; its figures mean little."""
    with_mlserver: bool = True
    only: str = ""
    """One part of a bench that has several; empty means all."""


@dataclass(frozen=True)
class BenchResult:
    """What a bench found."""

    bench: str
    rows: Mapping[str, Mapping[str, float]]
    """Medians, by case and figure."""
    ratios: Mapping[str, float]
    """Above 1: ours is better."""
    figures: Mapping[str, float]
    notes: tuple[str, ...] = field(default=())

    def json_line(self) -> str:
        return json.dumps({"bench": self.bench, "ratios": _rounded(self.ratios), "figures": _rounded(self.figures)})


def interleaved(cases: Mapping[str, Measure], *, repetitions: int, say: Say) -> dict[str, dict[str, float]]:
    """Medians by case and figure; every repetition measures all cases, in turn."""
    seen: dict[str, list[Mapping[str, float]]] = {name: [] for name in cases}
    for repetition in range(repetitions):
        for name, measure in cases.items():
            say(f"{name}: {repetition + 1} of {repetitions}")
            seen[name].append(measure())
    return {name: medians(figures) for name, figures in seen.items()}


def medians(repetitions: list[Mapping[str, float]]) -> dict[str, float]:
    """Each figure's median over the repetitions."""
    return {name: statistics.median(figures[name] for figures in repetitions) for name in repetitions[0]}


def together(bench: str, parts: Sequence[BenchResult]) -> BenchResult:
    """Several benches as one; where two say the same name, the later counts."""
    return BenchResult(
        bench,
        rows={name: row for part in parts for name, row in part.rows.items()},
        ratios={name: value for part in parts for name, value in part.ratios.items()},
        figures={name: value for part in parts for name, value in part.figures.items()},
        notes=tuple(note for part in parts for note in part.notes),
    )


def table(result: BenchResult) -> str:
    """The result for people."""
    columns = list(dict.fromkeys(name for figures in result.rows.values() for name in figures))
    width = max(len(name) for name in result.rows)
    lines = [" ".join([" " * width, *(f"{name:>14}" for name in columns)])]
    for name, figures in result.rows.items():
        cells = (f"{figures[column]:>14,.2f}" if column in figures else " " * 13 + "-" for column in columns)
        lines.append(" ".join([f"{name:<{width}}", *cells]))
    lines += ["", *(f"{name}: {value:.2f}x" for name, value in result.ratios.items())]
    lines += [f"{name}: {value:.4g}" for name, value in result.figures.items()]
    return "\n".join([*lines, *result.notes])


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
