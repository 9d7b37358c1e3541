"""A true subset of IoT Hub's query language: `SELECT * FROM devices [WHERE condition]`. Pure.

Conditions compare a path (`deviceId`, `status`, `connectionState`, `tags.site`, `properties.reported.a.b`) with a
literal by = != <> < > <= >=, or test `IN [..]`, `NIN [..]`, `is_defined(path)`, joined by AND, OR, NOT, parentheses.
A path that is not there, or of another type than the literal, makes the comparison false. Everything else of the
language (projections, aggregates, GROUP BY, TOP, jobs, modules) is refused.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from cloud.localhub.errors import ServiceError, invalid_argument

QUERY_CHARACTERS_MAX = 4096
_DEPTH_MAX = 32

Condition = Callable[[Mapping[str, Any]], bool]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*'|"[^"]*")
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<word>[A-Za-z_$][\w$\-]*(?:\.[\w$\-]+|\[\[[^\]]+\]\])*)
    | (?P<symbol><>|!=|<=|>=|=|<|>|\(|\)|\[|\]|,|\*)
    )""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}
_LITERALS = {"TRUE": True, "FALSE": False, "NULL": None}
_MISSING = object()


def parse(text: str) -> Condition:
    """The condition of a query, to be called with a twin's JSON form. Raises ServiceError for what is not supported."""
    parser = _Parser(_tokens(text))
    for expected in ("SELECT", "*", "FROM", "DEVICES"):
        parser.expect(expected)
    condition: Condition = lambda twin: True  # noqa: E731  # the other branch returns one too
    if parser.accept("WHERE"):
        condition = parser.disjunction(0)
    if parser.peek() is not None:
        raise _unsupported(f"the end of the query, got {parser.peek()!r}")
    return condition


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > QUERY_CHARACTERS_MAX:
        raise _unsupported(f"a query of at most {QUERY_CHARACTERS_MAX} characters, got {len(text)}")
    tokens, at, text = [], 0, text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unsupported(f"a word, number, string or operator, got {text[at : at + 20]!r}")
        tokens.append((str(match.lastgroup), str(match[match.lastgroup or 0])))
        at = match.end()
    return tokens


class _Parser:
    """Recursive descent over the tokens; `depth` bounds the nesting."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def accept(self, word: str) -> bool:
        if self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind != "string" and text.upper() == word:
                self._at += 1
                return True
        return False

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise _unsupported(f"{word}, got {self.peek()!r}")

    def disjunction(self, depth: int) -> Condition:
        parts = [self.conjunction(depth)]
        while self.accept("OR"):
            parts.append(self.conjunction(depth))
        return parts[0] if len(parts) == 1 else lambda twin: any(part(twin) for part in parts)

    def conjunction(self, depth: int) -> Condition:
        parts = [self.negation(depth)]
        while self.accept("AND"):
            parts.append(self.negation(depth))
        return parts[0] if len(parts) == 1 else lambda twin: all(part(twin) for part in parts)

    def negation(self, depth: int) -> Condition:
        if depth > _DEPTH_MAX:
            raise _unsupported(f"at most {_DEPTH_MAX} levels, got more")
        if self.accept("NOT"):
            inner = self.negation(depth + 1)
            return lambda twin: not inner(twin)
        if self.accept("("):
            inner = self.disjunction(depth + 1)
            self.expect(")")
            return inner
        if self.accept("IS_DEFINED"):
            self.expect("(")
            path = self._path()
            self.expect(")")
            return lambda twin: _lookup(twin, path) is not _MISSING
        return self._comparison()

    def _comparison(self) -> Condition:
        path = self._path()
        for word, is_wanted in (("IN", True), ("NIN", False)):
            if self.accept(word):
                values = self._list()
                return lambda twin: _is_in(_lookup(twin, path), values, is_wanted=is_wanted)
        _, operator = self._next("symbol")
        if operator not in _COMPARE:
            raise _unsupported(f"a comparison, got {operator!r}")
        literal = self._literal()
        return lambda twin: _compares(_lookup(twin, path), operator, literal)

    def _list(self) -> list[Any]:
        self.expect("[")
        values = [self._literal()]
        while self.accept(","):
            values.append(self._literal())
        self.expect("]")
        return values

    def _path(self) -> tuple[str, ...]:
        _, word = self._next("word")
        return tuple(word.removeprefix("devices.").split("."))

    def _literal(self) -> Any:
        kind, text = self._next("string", "number", "word")
        if kind == "string":
            return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
        if kind == "number":
            return float(text) if "." in text else int(text)
        if text.upper() not in _LITERALS:
            raise _unsupported(f"a literal, got {text!r}")
        return _LITERALS[text.upper()]

    def _next(self, *kinds: str) -> tuple[str, str]:
        if self._at >= len(self._tokens) or self._tokens[self._at][0] not in kinds:
            raise _unsupported(f"a {' or '.join(kinds)}, got {self.peek()!r}")
        self._at += 1
        return self._tokens[self._at - 1]


def _lookup(twin: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: object = twin
    for step in path:
        if not isinstance(value, Mapping) or step not in value:
            return _MISSING
        value = value[step]
    return value


def _compares(value: object, operator: str, literal: object) -> bool:
    if value is _MISSING or not _are_comparable(value, literal, operator):
        return False
    return _COMPARE[operator](value, literal)


def _are_comparable(value: object, literal: object, operator: str) -> bool:
    if value is None or literal is None or isinstance(value, bool) or isinstance(literal, bool):
        return operator in ("=", "!=", "<>") and (type(value) is type(literal) or None in (value, literal))
    both_numbers = isinstance(value, int | float) and isinstance(literal, int | float)
    return both_numbers or (isinstance(value, str) and isinstance(literal, str))


def _is_in(value: object, values: list[Any], *, is_wanted: bool) -> bool:
    return value is not _MISSING and any(_compares(value, "=", literal) for literal in values) is is_wanted


def _unsupported(what: str) -> ServiceError:
    supported = "the local hub supports SELECT * FROM devices [WHERE ...]"
    return invalid_argument(f"Expected {what}; {supported}")
