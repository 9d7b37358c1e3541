"""The query language evaluated in the plainest way, document by document: what the SQL must agree with.

A condition is true, false or None, undefined. Written from the documentation, and sharing nothing with the compiler.
"""

import operator
from collections.abc import Mapping
from typing import Any

from cloud.localhub.query.tree import (
    All,
    Compare,
    Condition,
    In,
    Is,
    Literal,
    Matches,
    Not,
    Path,
    Query,
    Some,
)

_ABSENT = object()
_OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_TURNED = str.maketrans("<>", "><")
_TYPES = {
    "NULL": ("null",),
    "BOOL": ("bool",),
    "NUMBER": ("number",),
    "STRING": ("text",),
    "OBJECT": ("object",),
    "ARRAY": ("array",),
    "PRIMITIVE": ("null", "bool", "number", "text"),
}


def holds(condition: Condition, document: Mapping[str, Any]) -> bool | None:
    """Whether the condition is true of the document, false, or undefined."""
    match condition:
        case All(parts):
            return _all([holds(part, document) for part in parts])
        case Some(parts):
            return _negated(_all([_negated(holds(part, document)) for part in parts]))
        case Not(inner):
            return _negated(holds(inner, document))
        case Compare(Literal() as literal, sign, Path() as path):
            return holds(Compare(path, sign.translate(_TURNED), literal), document)
        case Compare(left, sign, right):
            return _compared(_operand(left, document), sign, _operand(right, document), right)
        case In(path, values, is_wanted):
            value = _at(path, document)
            if value is _ABSENT:
                return None
            return any(_compared(value, "=", each, Literal(each)) is True for each in values) is is_wanted
        case Is(kind, path):
            value = _at(path, document)
            return value is not _ABSENT and (kind == "DEFINED" or _type(value) in _TYPES[kind])
        case Matches(function, path, text):
            value = _at(path, document)
            if not isinstance(value, str):
                return None
            tests = {"STARTSWITH": value.startswith, "ENDSWITH": value.endswith, "CONTAINS": value.__contains__}
            return tests[function](text)


def select(query: Query, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that matches, in the documents' order."""
    return [each for each in documents if query.where is None or holds(query.where, each) is True]


def groups(query: Query, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of an aggregate query, in any order."""
    members: dict[tuple[str, ...], list[dict[str, Any]]] = {} if query.group_by else {(): []}
    for document in select(query, documents):
        key = tuple(repr(_at(path, document)) for path in query.group_by)
        members.setdefault(key, []).append(document)
    return [_row(query, group) for group in members.values()]


def _row(query: Query, group: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column in query.columns:
        if column.path is None:
            row[column.name] = len(group)
        elif column.function is None:
            row[column.name] = _at(column.path, group[0])
        else:
            values: list[Any] = [value for each in group if _type(value := _at(column.path, each)) == "number"]
            row[column.name] = _aggregated(column.function, values)
    return {name: value for name, value in row.items() if value is not _ABSENT}


def _aggregated(function: str, values: list[float]) -> object:
    if not values:
        return _ABSENT
    if function == "AVG":
        return sum(values) / len(values)
    return {"SUM": sum(values), "MIN": min(values), "MAX": max(values)}[function]


def _all(values: list[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def _negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def _compared(left: Any, sign: str, right: Any, written: Path | Literal) -> bool | None:
    if isinstance(written, Literal) and written.value is None:
        return None if left is _ABSENT or sign not in ("=", "!=") else _OPERATORS[sign](left is None, True)
    kinds = {_type(left), _type(right)}
    if len(kinds) > 1 or not kinds <= {"number", "text", "bool"}:
        return None
    if kinds == {"bool"} and sign not in ("=", "!="):
        return None
    return bool(_OPERATORS[sign](left, right))


def _operand(operand: Path | Literal, document: Mapping[str, Any]) -> object:
    return operand.value if isinstance(operand, Literal) else _at(operand, document)


def _at(path: Path, document: Mapping[str, Any]) -> object:
    value: object = document
    for step in path.steps:
        if not isinstance(value, dict) or step not in value:
            return _ABSENT
        value = value[step]
    return value


def _type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "text"
        case dict():
            return "object"
        case list():
            return "array"
    return "absent"
