"""A query's tree as SQL over the hub's tables, so that SQLite reads the JSON and Python sees only what matched. Pure.

Conditions have three values, as in IoT Hub's language and in SQL: a comparison with a property that is not there, or of
another type, is undefined (NULL), NOT of it too, and a row counts where its condition is true. Only values of one kind
compare: numbers with numbers, texts with texts by code point, booleans and null for equality.

A property's place is an SQL expression of JSON and a path in it. Names, which the parser has checked, go into the SQL
text inside a quoted path; all other values go as parameters.
"""

import json
from dataclasses import dataclass

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
    Scalar,
    Some,
    Source,
)
from cloud.localhub.tables import MESSAGES

Parameters = list[Scalar]

_KINDS = {
    "NULL": ("null",),
    "BOOL": ("true", "false"),
    "NUMBER": ("integer", "real"),
    "STRING": ("text",),
    "OBJECT": ("object",),
    "ARRAY": ("array",),
    "PRIMITIVE": ("null", "true", "false", "integer", "real", "text"),
}
_ORDERINGS = ("<", ">", "<=", ">=")
_NUMBERS, _BOOLS = "IN ('integer', 'real')", "IN ('true', 'false')"


@dataclass(frozen=True)
class Table:
    """A collection of JSON documents: its table, the column that orders it, and where its properties are.

    `places` maps a property's first steps, the longest that fit, to an expression of JSON and a path prefix in it.
    `key_path` is the property that is the key itself, which SQLite finds by its index.
    """

    name: str
    key: str
    columns: tuple[str, ...]
    places: dict[tuple[str, ...], tuple[str, str]]
    key_path: Path | None = None


_TWIN_PLACES = {
    ("deviceId",): ("identity", "$.device_id"),
    ("deviceEtag",): ("identity", "$.etag"),
    ("etag",): ("json_quote(twin_etag(twin ->> '$.version'))", "$"),
    ("status",): ("identity", "$.status"),
    ("statusReason",): ("identity", "$.status_reason"),
    ("statusUpdateTime",): ("identity", "$.status_updated"),
    ("authenticationType",): ("identity", "$.auth_type"),
    ("x509Thumbprint", "primaryThumbprint"): ("identity", "$.primary_thumbprint"),
    ("x509Thumbprint", "secondaryThumbprint"): ("identity", "$.secondary_thumbprint"),
    ("capabilities", "iotEdge"): ("'false'", "$"),
    ("modelId",): ("identity", "$.model_id"),
    ("version",): ("twin", "$.version"),
    ("configurations",): ("configured", "$.states"),
    ("tags",): ("twin", "$.tags"),
    ("properties",): ("'{}'", "$"),
    ("properties", "desired"): ("twin", "$.desired.document"),
    ("properties", "desired", "$version"): ("twin", "$.desired.version"),
    ("properties", "desired", "$metadata"): ("twin", "$.desired.metadata"),
    ("properties", "reported"): ("twin", "$.reported.document"),
    ("properties", "reported", "$version"): ("twin", "$.reported.version"),
    ("properties", "reported", "$metadata"): ("twin", "$.reported.metadata"),
}


def _presence(key: str) -> dict[tuple[str, ...], tuple[str, str]]:
    names = ("connectionState", "lastActivityTime")
    return {(name,): (f"json_quote(presence({key}, '{name}'))", "$") for name in names}


TABLES = {
    Source.DEVICES: Table(
        name="devices",
        key="device_id",
        columns=("identity", "twin", MESSAGES),
        places={**_TWIN_PLACES, **_presence("device_id"), ("cloudToDeviceMessageCount",): (MESSAGES, "$")},
        key_path=Path(("deviceId",)),
    ),
    Source.MODULES: Table(
        name="modules",
        key="module_key",
        columns=("identity", "twin", "0"),
        places={**_TWIN_PLACES, ("moduleId",): ("identity", "$.module_id"), **_presence("module_key")},
    ),
    Source.JOBS: Table(name="device_jobs", key="job_key", columns=("document",), places={(): ("document", "$")}),
}


def where(condition: Condition, table: Table, parameters: Parameters) -> str:
    """The condition in SQL, its values appended to the parameters."""
    match condition:
        case All(parts):
            return "(" + " AND ".join(where(part, table, parameters) for part in parts) + ")"
        case Some(parts):
            return "(" + " OR ".join(where(part, table, parameters) for part in parts) + ")"
        case Not(inner):
            return f"(NOT {where(inner, table, parameters)})"
        case Compare(Path() as path, operator, Literal(value)):
            return _compare_literal(table, path, operator, value, parameters)
        case Compare(Literal() as left, operator, Path() as right):
            return where(Compare(right, _mirrored(operator), left), table, parameters)
        case Compare(Path() as left, operator, Path() as right):
            return _compare_paths(table, left, operator, right)
        case Compare():
            raise AssertionError("Expected a property in a comparison, got two literals")  # The parser refuses them.
        case In():
            return _in(table, condition, parameters)
        case Is(kind, path):
            kinds = "IS NOT NULL" if kind == "DEFINED" else f"IN ({_quoted(_KINDS[kind])})"
            return f"coalesce({_type(table, path)} {kinds}, 0)"
        case Matches():
            return _matches(table, condition, parameters)


def column(selected: Column, table: Table) -> str:
    """A column of an aggregate query: a number, or the JSON text of what the rows are grouped by."""
    if selected.function is None:
        assert selected.path is not None
        return json_of(selected.path, table)
    if selected.path is None:
        return "count(*)"
    number = f"CASE WHEN {_type(table, selected.path)} {_NUMBERS} THEN {_value(table, selected.path)} END"
    # Sums are of floats: whole numbers of a million devices may pass SQLite's largest.
    return f"sum(1.0 * ({number}))" if selected.function == "SUM" else f"{selected.function.lower()}({number})"


def json_of(path: Path, table: Table) -> str:
    """The value as a JSON text, NULL where there is none."""
    document, place = _place(table, path)
    return f"({document} -> {place})"


def _compare_literal(table: Table, path: Path, operator: str, value: Scalar, parameters: Parameters) -> str:
    kind = _type(table, path)
    if isinstance(value, bool):
        return _only_equality(f"CASE WHEN {kind} {_BOOLS} THEN {kind} {operator} '{str(value).lower()}' END", operator)
    if value is None:
        return _only_equality(f"CASE WHEN {kind} IS NOT NULL THEN {kind} {operator} 'null' END", operator)
    kinds = "= 'text'" if isinstance(value, str) else _NUMBERS
    parameters.append(value)
    if path == table.key_path and isinstance(value, str):
        return f"{table.key} {operator} ?"
    return f"CASE WHEN {kind} {kinds} THEN {_value(table, path)} {operator} ? END"


def _compare_paths(table: Table, left: Path, operator: str, right: Path) -> str:
    values = f"{_value(table, left)} {operator} {_value(table, right)}"
    are_alike = f"{_family(table, left, operator)} = {_family(table, right, operator)}"
    return f"CASE WHEN {are_alike} THEN {values} END"


def _family(table: Table, path: Path, operator: str) -> str:
    """A number that two values share if the operator compares them, else NULL."""
    kind = _type(table, path)
    bools = "" if operator in _ORDERINGS else f" WHEN {kind} {_BOOLS} THEN 3"
    return f"CASE WHEN {kind} {_NUMBERS} THEN 1 WHEN {kind} = 'text' THEN 2{bools} END"


def _in(table: Table, condition: In, parameters: Parameters) -> str:
    if condition.path == table.key_path:
        texts = [value for value in condition.values if isinstance(value, str)]
        parameters.extend(texts)
        return f"{table.key} {'IN' if condition.is_wanted else 'NOT IN'} ({', '.join('?' * len(texts))})"
    kind, value = _type(table, condition.path), _value(table, condition.path)
    texts = [each for each in condition.values if isinstance(each, str)]
    numbers = [each for each in condition.values if isinstance(each, int | float) and not isinstance(each, bool)]
    words = [json.dumps(each) for each in condition.values if each is None or isinstance(each, bool)]
    tests = [f"{kind} IN ({_quoted(words)})"] if words else []
    for among, kinds in ((texts, "= 'text'"), (numbers, _NUMBERS)):
        if among:
            tests.append(f"({kind} {kinds} AND {value} IN ({', '.join('?' * len(among))}))")
            parameters.extend(among)
    found = " OR ".join(tests)
    return f"CASE WHEN {kind} IS NOT NULL THEN {'' if condition.is_wanted else 'NOT '}({found}) END"


def _matches(table: Table, condition: Matches, parameters: Parameters) -> str:
    value = _value(table, condition.path)
    parameters.append(condition.text)
    match condition.function:
        case "STARTSWITH":
            test = f"substr({value}, 1, {len(condition.text)}) = ?"
        case "ENDSWITH":
            test = f"substr({value}, max(1, length({value}) - {len(condition.text) - 1})) = ?"
        case _:
            test = f"instr({value}, ?) > 0"
    return f"CASE WHEN {_type(table, condition.path)} = 'text' THEN {test} END"


def _only_equality(comparison: str, operator: str) -> str:
    return "NULL" if operator in _ORDERINGS else comparison


def _mirrored(operator: str) -> str:
    return {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(operator, operator)


def _type(table: Table, path: Path) -> str:
    document, place = _place(table, path)
    return f"json_type({document}, {place})"


def _value(table: Table, path: Path) -> str:
    document, place = _place(table, path)
    return f"json_extract({document}, {place})"


def _place(table: Table, path: Path) -> tuple[str, str]:
    """An expression of JSON, and the path in it as a quoted text. What is nowhere is looked for in an empty object."""
    for length in range(len(path.steps), -1, -1):
        if found := table.places.get(path.steps[:length]):
            document, prefix = found
            return document, "'" + prefix + "".join(_step(name) for name in path.steps[length:]) + "'"
    return "'{}'", "'$.nothing'"


def _step(name: str) -> str:
    return '."' + name.replace("'", "''") + '"'


def _quoted(words: "list[str] | tuple[str, ...]") -> str:
    return ", ".join(f"'{word}'" for word in words)
