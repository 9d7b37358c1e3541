"""On which line of a TOML file each key is. tomllib checks the file, and tells no positions."""

import re
from collections.abc import Iterator, Mapping

from simulations.experiments.errors import Key

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"^\s*\[\[?\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"^\s*({_DOTTED})\s*=")
_INLINE = re.compile(rf"[{{,]\s*({_DOTTED})\s*=")
_QUOTES = ('"""', "'''")


def lines_of_keys(text: str) -> dict[Key, int]:
    r"""The line, from 1, of every key and table; keys of inline tables are on the line where their table begins.

    >>> lines_of_keys("rounds = 3\\n[local]\\nsteps = 1\\n")
    {('rounds',): 1, ('local',): 2, ('local', 'steps'): 3}
    """
    lines: dict[Key, int] = {}
    table: Key = ()
    for number, line in _statements(text):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            key = table + _parts(assignment[1])
            lines.setdefault(key, number)
            for inner in _INLINE.finditer(line[assignment.end() :]):
                lines.setdefault(key + _parts(inner[1]), number)
    return lines


def line_of(key: Key, lines: Mapping[Key, int]) -> int | None:
    """The line of the key, or of the innermost table around it that the file has."""
    for length in range(len(key), 0, -1):
        if (line := lines.get(key[:length])) is not None:
            return line
    return None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Lines outside of multi-line strings."""
    closing = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            closing = "" if closing in line else closing
            continue
        yield number, line
        closing = next((quote for quote in _QUOTES if line.count(quote) % 2), "")


def _parts(dotted: str) -> Key:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))
