"""One HTML page that needs nothing beside itself: style, pictures and tables inside, no script, nothing fetched."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from simulations.results.curves import Plot

_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #22313f; --quiet: #66757f; --line: #dfe5e8; --paper: #fbfcfc; --card: #fff; --accent: #1f8a8a;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf0; --quiet: #9aaab3; --line: #33424c; --paper: #141c22; --card: #1b252c; --accent: #56c2c2; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.05rem; margin: 2.4rem 0 0.8rem; }
.lead { color: var(--quiet); margin: 0.3rem 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 0.8rem; margin-top: 1.6rem; }
.tile, figure, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 0.8rem 1rem; }
.tile b { display: block; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tile:first-child b { color: var(--accent); }
.tile span { color: var(--quiet); font-size: 0.8rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); gap: 0.9rem; }
figure { margin: 0; padding: 0.9rem; background: #fff; color: #22313f; }
figure.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; font-size: 0.9rem; margin: 0 0 0.4rem 0.2rem; }
img { width: 100%; height: auto; display: block; }
.card { padding: 0.3rem 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.45rem 1rem 0.45rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 500; }
tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; }
pre { margin: 0; padding: 0.7rem 0; font: 0.82rem/1.5 ui-monospace, monospace; }
ul { margin: 0.5rem 0; padding-left: 1.1rem; }
footer { color: var(--quiet); font-size: 0.8rem; margin-top: 2.5rem; }
""".strip()


@dataclass(frozen=True)
class Section:
    """A heading, and HTML under it."""

    title: str
    body: str


def page(*, title: str, lead: str, tiles: Mapping[str, str], sections: Iterable[Section], foot: str) -> str:
    """The whole page.

    Args:
        title: Of the page.
        lead: One line under it.
        tiles: What a figure is called, to the figure.
        sections: In order.
        foot: One line at the end.
    """
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in tiles.items()
    )
    body = "".join(f"<section><h2>{escape(section.title)}</h2>{section.body}</section>" for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p><div class="tiles">{shown}</div>'
        f"{body}<footer>{escape(foot)}</footer></main></body></html>\n"
    )


def pictures(plots: Sequence[Plot], *, wide: Sequence[Plot] = ()) -> str:
    """A grid of pictures; each is an image of its own, so that their names inside do not meet."""
    figures = [*((plot, "") for plot in plots), *((plot, ' class="wide"') for plot in wide)]
    return '<div class="plots">' + "".join(_figure(plot, kind) for plot, kind in figures) + "</div>"


def _figure(plot: Plot, kind: str) -> str:
    data = base64.b64encode(plot.svg.encode()).decode()
    return (
        f"<figure{kind}><figcaption>{escape(plot.title)}</figcaption>"
        f'<img alt="{escape(plot.title)}" src="data:image/svg+xml;base64,{data}"></figure>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ("", *[' class="number"'] * (len(cells) - 1))
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for c, k in zip(cells, kinds, strict=True)) + "</tr>"

    return f'<div class="card"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


def facts(rows: Mapping[str, str]) -> str:
    """Names and what they are."""
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f'<div class="card"><table>{lines}</table></div>'


def bullets(lines: Iterable[str]) -> str:
    return '<div class="card"><ul>' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul></div>"


def code(text: str) -> str:
    return f'<div class="card"><pre>{escape(text)}</pre></div>'
