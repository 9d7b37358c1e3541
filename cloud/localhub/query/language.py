"""IoT Hub's query language, read: a text becomes a `Query`, a tree of frozen values. Pure.

    query     := SELECT [TOP n] columns FROM source [WHERE condition] [GROUP BY path, ...]
    columns   := * | column, ...        column := (path | aggregate) [AS name]
    aggregate := COUNT() | AVG(path) | SUM(path) | MIN(path) | MAX(path)
    source    := devices | devices.modules | devices.jobs
    condition := NOT, AND, OR, parentheses over:
                 operand (= != <> < > <= >=) operand | path (IN | NIN) [literal, ...]
                 | IS_DEFINED(path), IS_NULL, IS_BOOL, IS_NUMBER, IS_STRING, IS_OBJECT, IS_ARRAY, IS_PRIMITIVE
                 | STARTSWITH(path, 'text'), ENDSWITH, CONTAINS (also STARTS_WITH, ENDS_WITH)
    path      := name.name...           a name with other characters is written [[name]]

Words of the language have any case; names have the case they are stored with. Arithmetic, conversions and functions
of routing queries are refused, and so is what IoT Hub refuses: columns of `devices.jobs`, a column that is neither an
aggregate nor in GROUP BY. https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-query-language
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.query.tree import (
    All,
    Column,
    Compare,
    Condition,
    In,
    Is,
    Literal,
    Matches,
    Not,
    Path,
    Query,
    Scalar,
    Some,
    Source,
)

QUERY_CHARACTERS_MAX = 4096
_DEPTH_MAX = 32
_T = TypeVar("_T")

KINDS = ("DEFINED", "NULL", "BOOL", "NUMBER", "STRING", "OBJECT", "ARRAY", "PRIMITIVE")
_MATCHES = {
    "STARTSWITH": "STARTSWITH",
    "STARTS_WITH": "STARTSWITH",
    "ENDSWITH": "ENDSWITH",
    "ENDS_WITH": "ENDSWITH",
    "CONTAINS": "CONTAINS",
}
_TESTS = {f"IS_{kind}": kind for kind in KINDS}
_AGGREGATES = {name: name for name in ("COUNT", "AVG", "SUM", "MIN", "MAX")}
_OPERATORS = ("=", "!=", "<>", "<", ">", "<=", ">=")
_LITERALS: dict[str, Scalar] = {"TRUE": True, "FALSE": False, "NULL": None}

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*'|"[^"]*")
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<word>(?:[^\W\d]|\$)[\w$\-]*)
    | \[\[(?P<name>[^\]]+)\]\]
    | (?P<symbol><>|!=|<=|>=|[=<>()\[\],.*])
    )""",
    re.VERBOSE,
)


def parse(text: str) -> Query:
    """The query a text stands for. Raises ServiceError for what is none, or not supported."""
    parser = _Parser(text)
    query = parser.query()
    parser.end()
    return query


def parse_condition(text: str) -> Condition:
    """What may follow WHERE, alone, as target conditions and jobs have it. Raises ServiceError."""
    parser = _Parser(text)
    condition = parser.condition(Source.DEVICES)
    parser.end()
    return condition


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > QUERY_CHARACTERS_MAX:
        raise _refused(f"a query of at most {QUERY_CHARACTERS_MAX} characters, got {len(text)}")
    tokens, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _refused(f"a word, number, string or operator, got {text[at : at + 20]!r}")
        tokens.append((str(match.lastgroup), str(match[match.lastgroup or 0])))
        at = match.end()
    return tokens


class _Parser:
    """Recursive descent over the tokens; `depth` bounds the nesting."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._source = Source.DEVICES

    def query(self) -> Query:
        self._expect("SELECT")
        top = self._whole() if self._accept("TOP") else None
        columns = () if self._accept("*") else self._listed(self._column)
        self._expect("FROM")
        self._source = self._from()
        where = self.condition(self._source) if self._accept("WHERE") else None
        group_by: tuple[Path, ...] = ()
        if self._accept("GROUP"):
            self._expect("BY")
            group_by = self._listed(self._path)
        # Columns come before the source whose name their paths may begin with.
        columns = tuple(replace(each, path=each.path and self._local(each.path)) for each in columns)
        return _checked(Query(self._source, columns, where, group_by, top))

    def condition(self, source: Source) -> Condition:
        self._source = source
        return self._disjunction(0)

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise _refused(f"the end of the query, got {self._peek()!r}")

    # SELECT and FROM

    def _column(self) -> Column:
        function = self._function(_AGGREGATES)
        if function is None:
            path = self._path()
            return Column(self._name() if self._accept("AS") else path.steps[-1], path)
        self._expect("(")
        aggregated = None if function == "COUNT" else self._path()
        self._expect(")")
        self._expect("AS")
        return Column(self._name(), aggregated, function)

    def _from(self) -> Source:
        name = ".".join(self._raw_path()).lower()
        if name not in set(Source):
            raise _refused(f"FROM {', '.join(Source)}, got {name[:80]!r}")
        return Source(name)

    # WHERE

    def _disjunction(self, depth: int) -> Condition:
        parts = [self._conjunction(depth)]
        while self._accept("OR"):
            parts.append(self._conjunction(depth))
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _conjunction(self, depth: int) -> Condition:
        parts = [self._negation(depth)]
        while self._accept("AND"):
            parts.append(self._negation(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _negation(self, depth: int) -> Condition:
        if depth > _DEPTH_MAX:
            raise _refused(f"at most {_DEPTH_MAX} levels, got more")
        if self._accept("NOT"):
            return Not(self._negation(depth + 1))
        if self._accept("("):
            inner = self._disjunction(depth + 1)
            self._expect(")")
            return inner
        return self._test()

    def _test(self) -> Condition:
        if kind := self._function(_TESTS):
            return Is(kind, self._arguments(self._path))
        if function := self._function(_MATCHES):
            path, text = self._arguments(lambda: (self._path(), self._second_text()))
            return Matches(function, path, text)
        return self._comparison()

    def _comparison(self) -> Condition:
        left = self._operand()
        for word, is_wanted in (("IN", True), ("NIN", False)):
            if self._accept(word):
                if isinstance(left, Literal):
                    raise _refused(f"a property before {word}, got a literal")
                return In(left, self._array(), is_wanted)
        operator = self._next("symbol")
        if operator not in _OPERATORS:
            raise _refused(f"a comparison, got {operator!r}")
        right = self._operand()
        if isinstance(left, Literal) and isinstance(right, Literal):
            raise _refused("a property in a comparison, got two literals")
        return Compare(left, "!=" if operator == "<>" else operator, right)

    def _operand(self) -> Path | Literal:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        is_literal = kind in ("string", "number") or (kind == "word" and text.upper() in _LITERALS)
        return Literal(self._literal()) if is_literal else self._path()

    def _array(self) -> tuple[Scalar, ...]:
        self._expect("[")
        values = self._listed(self._literal)
        self._expect("]")
        return values

    def _arguments(self, read: Callable[[], _T]) -> _T:
        self._expect("(")
        arguments = read()
        self._expect(")")
        return arguments

    def _second_text(self) -> str:
        self._expect(",")
        return cast(str, _value("string", self._next("string")))

    # Names, literals, tokens

    def _path(self) -> Path:
        return self._local(Path(self._raw_path()))

    def _raw_path(self) -> tuple[str, ...]:
        steps = [self._name()]
        while self._accept("."):
            steps.append(self._name())
        return tuple(steps)

    def _local(self, path: Path | None) -> Path:
        """The path without the name of its source in front: `devices.jobs.status` is `status`."""
        steps = () if path is None else path.steps
        prefix = tuple(self._source.split("."))
        return (
            Path(steps[len(prefix) :]) if len(steps) > len(prefix) and steps[: len(prefix)] == prefix else Path(steps)
        )

    def _name(self) -> str:
        name = self._next("word", "name")
        # SQLite compares a name with the text between JSON's quotes and knows no escapes there.
        if any(character in '"\\' or ord(character) < 0x20 for character in name):
            raise _refused(f"a property's name without quotes, got {name[:80]!r}")
        return name

    def _literal(self) -> Scalar:
        kind = self._tokens[self._at][0] if self._at < len(self._tokens) else ""
        return _value(kind, self._next("string", "number", "word"))

    def _whole(self) -> int:
        text = self._next("number")
        if not text.isdigit() or len(text) > 9:
            raise _refused(f"a whole number after TOP, got {text!r}")
        return int(text)

    def _listed(self, read: Callable[[], _T]) -> tuple[_T, ...]:
        values = [read()]
        while self._accept(","):
            values.append(read())
        return tuple(values)

    def _function(self, names: Mapping[str, str]) -> str | None:
        """What the next word stands for, if a parenthesis follows and it is one of these names."""
        if self._at + 1 < len(self._tokens) and self._tokens[self._at + 1][1] == "(":
            kind, text = self._tokens[self._at]
            if kind == "word" and text.upper() in names:
                self._at += 1
                return names[text.upper()]
        return None

    def _peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _accept(self, word: str) -> bool:
        if self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind in ("word", "symbol") and text.upper() == word:
                self._at += 1
                return True
        return False

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            raise _refused(f"{word}, got {self._peek()!r}")

    def _next(self, *kinds: str) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at][0] not in kinds:
            raise _refused(f"a {' or '.join(kinds)}, got {self._peek()!r}")
        self._at += 1
        return self._tokens[self._at - 1][1]


def _value(kind: str, text: str) -> Scalar:
    if kind == "string":
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    if kind == "number":
        is_whole = text.removeprefix("-").isdigit() and abs(int(text)) < 2**63
        return int(text) if is_whole else float(text)
    if text.upper() not in _LITERALS:
        raise _refused(f"a literal, got {text!r}")
    return _LITERALS[text.upper()]


def _checked(query: Query) -> Query:
    """The query itself if its parts go together. Raises ServiceError."""
    if query.source is Source.JOBS and (query.columns or query.group_by):
        raise _refused("SELECT * FROM devices.jobs without GROUP BY, got columns")
    if query.is_aggregate:
        if not query.columns:
            raise _refused("columns with GROUP BY, got *")
        for column in query.columns:
            if column.function is None and column.path not in query.group_by:
                raise _refused(f"an aggregate or a path of GROUP BY, got the column {column.name[:80]!r}")
    names = [column.name for column in query.columns]
    if len(set(names)) < len(names):
        raise _refused(f"columns of different names, got {', '.join(names)[:200]}")
    return query


def _refused(what: str) -> ServiceError:
    return invalid_argument(f"The query did not parse: expected {what}")
