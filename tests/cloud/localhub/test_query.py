"""The query language: texts become trees, and SQL finds what the plainest evaluation finds."""

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.localhub import tables, twins
from cloud.localhub.devices import Identity
from cloud.localhub.errors import ServiceError
from cloud.localhub.query.language import parse, parse_condition
from cloud.localhub.query.run import Place, matching, page, place_of, prepare, token_of
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
from cloud.localhub.schema import migrate
from tests.cloud.localhub import naive_query

_TAGS: dict[str, Any] = {
    "site": "lyon",
    "line": 3,
    "ready": True,
    "list": [1],
    "deep": {"a b": "it's", "größe": 2.5},
}


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """The hub's tables in memory."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    migrate(made, partitions=1)
    prepare(made, lambda key, name: "Connected" if key == "press-07" else "Disconnected")
    yield made
    made.close()


def _add(
    database: sqlite3.Connection, device_id: str, tags: dict[str, Any], reported: dict[str, Any]
) -> dict[str, Any]:
    """Stores a device, and answers the document that queries see, as far as these tests look."""
    twin = twins.Twin(tags=tags, reported=twins.Section(document=reported))
    tables.put_device(database, tables.Device(Identity(device_id, "1", etag="7"), twin))
    properties = {"desired": {"$version": 1, "$metadata": {}}, "reported": {**reported, "$version": 1, "$metadata": {}}}
    return {"deviceId": device_id, "status": "enabled", "statusReason": None, "tags": tags, "properties": properties}


@pytest.mark.parametrize(
    ("condition", "is_found"),
    [
        ("deviceId = 'press-07'", True),
        ("deviceId IN ['press-06', 'press-07']", True),
        ("deviceId NIN ['press-07']", False),
        ("status = 'enabled' AND connectionState = 'Connected'", True),
        ("deviceEtag = '7' AND version = 1 AND etag = 'AAAAAAAAAAE='", True),
        ("tags.site = 'lyon' AND tags.line >= 3", True),
        ("tags.site = 'lyon' AND (tags.line < 3 OR properties.reported.temperature > 21)", True),
        ("21 < properties.reported.temperature", True),
        ("NOT tags.site = 'turin'", True),
        ("tags.missing = 1", False),
        ("tags.missing != 1", False),
        ("NOT tags.missing = 1", False),
        ("tags.missing = 1 OR tags.line = 3", True),
        ("tags.site > 3", False),
        ("tags.ready = true", True),
        ("tags.ready = 1", False),
        ("statusReason = null", True),
        ("tags.site <> null", True),
        ("tags.site IN ['turin', 'lyon']", True),
        ("tags.site NIN ['turin', 'lyon']", False),
        ("tags.ready IN [1, 'true']", False),
        ("tags.ready IN [1, true]", True),
        ("is_defined(tags.line) AND NOT is_defined(tags.nothing)", True),
        ("IS_OBJECT(tags.deep) AND IS_ARRAY(tags.list) AND IS_BOOL(tags.ready) AND IS_NULL(statusReason)", True),
        ("IS_PRIMITIVE(tags.deep)", False),
        ("STARTSWITH(tags.site, 'ly') AND ends_with(tags.site, 'on') AND contains(tags.site, 'yo')", True),
        ("STARTSWITH(tags.line, '3')", False),
        ("tags.deep.[[a b]] = 'it''s' AND tags.deep.größe = 2.5", True),
        ("devices.tags.line = 3.0", True),
        ("properties.reported.$version = 1 AND is_defined(properties.desired.$metadata)", True),
        ("properties.reported.temperature = properties.reported.limit", False),
        ("properties.reported.temperature < properties.reported.limit", True),
    ],
)
def test_conditions_hold_as_the_language_says(database: sqlite3.Connection, condition: str, is_found: bool) -> None:
    _add(database, "press-07", _TAGS, {"temperature": 21.5, "limit": 40})
    assert matching(database, Source.DEVICES, parse_condition(condition)) == (["press-07"] if is_found else [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "SELECT"),
        ("SELECT * FROM", "word or name"),
        ("SELECT * FROM things", "FROM devices, devices.modules, devices.jobs"),
        ("SELECT * FROM devices WHERE", "word or name"),
        ("SELECT * FROM devices WHERE tags.a", "symbol"),
        ("SELECT * FROM devices WHERE tags.a = 'x", "a word, number, string or operator"),
        ("SELECT * FROM devices WHERE tags.a IN []", "string or number or word"),
        ("SELECT * FROM devices WHERE 1 = 1", "a property in a comparison"),
        ("SELECT * FROM devices WHERE tags.a + 1 = 2", "a word, number, string or operator"),
        ("SELECT * FROM devices LIMIT 3", "the end of the query"),
        ("SELECT * FROM devices GROUP BY tags.a", "columns with GROUP BY"),
        ("SELECT tags.a FROM devices GROUP BY tags.b", "an aggregate or a path of GROUP BY"),
        ("SELECT COUNT() AS n, tags.a FROM devices", "an aggregate or a path of GROUP BY"),
        ("SELECT COUNT() FROM devices", "AS"),
        ("SELECT tags.a, properties.reported.a FROM devices", "columns of different names"),
        ("SELECT jobId FROM devices.jobs", "without GROUP BY"),
        ("SELECT TOP -1 * FROM devices", "a whole number after TOP"),
        ('SELECT * FROM devices WHERE tags.[[a"b]] = 1', "a property's name without quotes"),
        ("SELECT * FROM devices WHERE " + "(" * 1000, "levels"),
        ("SELECT * FROM devices WHERE " + "NOT " * 1000, "levels"),
        ("SELECT * FROM devices WHERE tags.a = '" + "x" * 5000 + "'", "4096 characters"),
    ],
)
def test_what_is_no_query_is_refused_with_what_was_expected(database: sqlite3.Connection, text: str, why: str) -> None:
    with pytest.raises(ServiceError, match="The query did not parse: expected") as refusal:
        page(database, parse(text), Place(), limit=1)
    assert (refusal.value.status, refusal.value.number) == (400, 400004)
    assert why in str(refusal.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_query_or_a_refusal(database: sqlite3.Connection, text: str) -> None:
    start = "SELECT * FROM devices WHERE "
    for candidate in (text, start + text, f"{start}tags.a = '{text}'"):
        with contextlib.suppress(ServiceError):
            page(database, parse(candidate), Place(), limit=1)


# Laws: trees drawn at random over documents drawn at random, few names and values so that they meet.

_NAMES = ("a", "b", "ä-1", "it's", "IN")
_TEXTS = st.sampled_from(("", "x", "xy", "yx", "ä", "it's", "1", "true")) | st.text(
    st.characters(exclude_categories=("Cs", "Cc")), max_size=3
)
_NUMBERS = st.integers(-3, 3) | st.sampled_from((0.5, -0.0, 2.0, 2**52, -(2**52))) | st.floats(-4, 4, width=16)
_SCALARS: st.SearchStrategy[Scalar] = st.one_of(_TEXTS, _NUMBERS, st.booleans(), st.none())
_VALUES = st.recursive(
    st.one_of(_TEXTS, _NUMBERS, st.booleans()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3),
    max_leaves=6,
)
_DOCUMENTS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=4),
        st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=4),
    ),
    max_size=6,
)
_PATHS = st.builds(
    lambda root, steps: Path((*root, *steps)),
    st.sampled_from((("tags",), ("properties", "reported"))),
    st.lists(st.sampled_from(_NAMES), min_size=1, max_size=2),
) | st.sampled_from((Path(("deviceId",)), Path(("statusReason",)), Path(("tags",)), Path(("nowhere", "a"))))
_OPERANDS = st.one_of(_PATHS, st.builds(Literal, _SCALARS))
_SIGNS = st.sampled_from(("=", "!=", "<", ">", "<=", ">="))
_TESTS: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Compare, _PATHS, _SIGNS, _OPERANDS),
    st.builds(Compare, st.builds(Literal, _SCALARS), _SIGNS, _PATHS),
    st.builds(In, _PATHS, st.lists(_SCALARS, min_size=1, max_size=4).map(tuple), st.booleans()),
    st.builds(
        Is, st.sampled_from(("DEFINED", "NULL", "BOOL", "NUMBER", "STRING", "OBJECT", "ARRAY", "PRIMITIVE")), _PATHS
    ),
    st.builds(Matches, st.sampled_from(("STARTSWITH", "ENDSWITH", "CONTAINS")), _PATHS, _TEXTS),
)
_CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    _TESTS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Some, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
_KEYS = st.sampled_from((Path(("tags", "a")), Path(("properties", "reported", "b")), Path(("deviceId",))))


@given(_CONDITIONS)
def test_a_tree_written_and_read_is_the_same_tree(condition: Condition) -> None:
    assert parse_condition(_written(condition)) == condition


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(condition=_CONDITIONS, contents=_DOCUMENTS, limit=st.integers(1, 3), top=st.none() | st.integers(0, 7))
def test_sql_selects_what_the_plainest_evaluation_selects_on_pages_of_any_size(
    database: sqlite3.Connection,
    condition: Condition,
    contents: list[tuple[dict[str, Any], dict[str, Any]]],
    limit: int,
    top: int | None,
) -> None:
    documents = _stored(database, contents)
    query = Query(Source.DEVICES, where=condition, top=top)
    expected = [each["deviceId"] for each in naive_query.select(query, documents)][:top]
    assert [row[0] for row in _all_pages(database, query, limit=limit)] == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(contents=_DOCUMENTS, keys=st.lists(_KEYS, max_size=2, unique=True), limit=st.integers(1, 3))
def test_groups_and_aggregates_are_those_of_the_plainest_evaluation(
    database: sqlite3.Connection,
    contents: list[tuple[dict[str, Any], dict[str, Any]]],
    keys: list[Path],
    limit: int,
) -> None:
    documents = _stored(database, contents)
    value = Path(("properties", "reported", "a"))
    columns = [Column(f"key{number}", key) for number, key in enumerate(keys)]
    columns += [
        Column(name, None if name == "COUNT" else value, name) for name in ("COUNT", "SUM", "AVG", "MIN", "MAX")
    ]
    query = Query(Source.DEVICES, tuple(columns), group_by=tuple(keys))
    found = [document for (document,) in _all_pages(database, query, limit=limit)]
    assert _sorted(found) == _sorted(naive_query.groups(query, documents))


def test_a_token_goes_on_only_with_its_own_query() -> None:
    text = "SELECT * FROM devices"
    place = Place("press-07", 3)
    assert place_of(text, token_of(text, place)) == place
    assert place_of(text, "") == Place()
    for token in (token_of(text + " ", place), "x", "AAAA", token_of(text, place)[:-3], "bnVsbA=="):
        with pytest.raises(ServiceError, match="continuation token"):
            place_of(text, token)


def _stored(
    database: sqlite3.Connection, contents: list[tuple[dict[str, Any], dict[str, Any]]]
) -> list[dict[str, Any]]:
    database.execute("DELETE FROM devices")
    return [_add(database, f"device-{number}", *content) for number, content in enumerate(contents)]


def _all_pages(database: sqlite3.Connection, query: Query, *, limit: int) -> list[tuple[Any, ...]]:
    rows, place = [], Place()
    for _ in range(100):
        found = page(database, query, place, limit=limit)
        assert len(found.rows) <= limit
        rows += found.rows
        if found.following is None:
            return rows
        place = found.following
    raise AssertionError("pages without end")


def _sorted(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps({name: _rounded(value) for name, value in row.items()}, sort_keys=True) for row in rows)


def _rounded(value: Any) -> Any:
    """Sums in another order differ in the last digits."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(f"{value:.9g}") + 0.0 if is_number and math.isfinite(value) else value


def _written(condition: Condition) -> str:
    match condition:
        case All(parts):
            return "(" + " AND ".join(_written(part) for part in parts) + ")"
        case Some(parts):
            return "(" + " or ".join(_written(part) for part in parts) + ")"
        case Not(inner):
            return f"NOT ({_written(inner)})"
        case Compare(left, sign, right):
            return f"{_operand(left)} {sign} {_operand(right)}"
        case In(path, values, is_wanted):
            return f"{_operand(path)} {'in' if is_wanted else 'NIN'} [{', '.join(map(_scalar, values))}]"
        case Is(kind, path):
            return f"is_{kind.lower()}({_operand(path)})"
        case Matches(function, path, text):
            return f"{function}({_operand(path)}, {_scalar(text)})"


def _operand(operand: Path | Literal) -> str:
    return _scalar(operand.value) if isinstance(operand, Literal) else ".".join(f"[[{step}]]" for step in operand.steps)


def _scalar(value: Scalar) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else json.dumps(value)
