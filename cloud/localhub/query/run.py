"""A query answered page by page: from a text and a continuation token to documents and the next token.

Rows of `*` and of columns are read in order of their key, so a page costs what it shows and what it skips; groups are
made anew for each page. A token names the query it continues, and means nothing to another.
"""

import base64
import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloud.localhub.devices import etag_of
from cloud.localhub.errors import invalid_argument
from cloud.localhub.query import sql
from cloud.localhub.query.tree import Column, Condition, Query, Source

Presence = Callable[[str, str], str]
"""A key and `connectionState` or `lastActivityTime`; called in the thread of the store."""

_ABSENT = object()


@dataclass(frozen=True)
class Place:
    """How far a query has come: the last key (of groups, how many), and how many rows it gave."""

    after: str = ""
    given: int = 0


@dataclass(frozen=True)
class Page:
    """Rows as the tables hold them, or the documents of groups; and where to go on, or None."""

    rows: list[tuple[Any, ...]]
    following: Place | None


def prepare(database: sqlite3.Connection, presence: Presence) -> None:
    """Gives the connection the functions that conditions may call."""
    database.create_function("presence", 2, presence)
    database.create_function("twin_etag", 1, etag_of, deterministic=True)


def page(database: sqlite3.Connection, query: Query, place: Place, *, limit: int) -> Page:
    """The next page."""
    if query.top is not None:
        limit = min(limit, query.top - place.given)
    if limit <= 0:
        return Page([], None)
    rows = (_groups if query.is_aggregate else _documents)(database, query, place, limit + 1)
    kept = rows[:limit]
    given = place.given + len(kept)
    is_over = len(rows) <= limit or given == query.top
    after = str(given) if query.is_aggregate else str(kept[-1][0]) if kept else ""
    return Page(kept, None if is_over else Place(after, given))


def matching(
    database: sqlite3.Connection, source: Source, condition: Condition | None, *, among: "tuple[str, ...] | None" = None
) -> list[str]:
    """The keys that match, in order, of all or of these."""
    table, parameters = sql.TABLES[source], sql.Parameters()
    tests = [] if condition is None else [sql.where(condition, table, parameters)]
    if among is not None:
        tests.append(f"{table.key} IN (SELECT value FROM json_each(?))")  # noqa: S608  # a constant
        parameters.append(json.dumps(among))
    test = " AND ".join(tests) or "1"
    text = f"SELECT {table.key} FROM {table.name} WHERE {test} ORDER BY {table.key}"  # noqa: S608  # `sql` quotes
    return [key for (key,) in database.execute(text, parameters)]


def count(database: sqlite3.Connection, query: Query) -> int:
    """How many rows the query has."""
    if query.is_aggregate:
        return len(_groups(database, query, Place(), -1))
    table, parameters = sql.TABLES[query.source], sql.Parameters()
    test = "1" if query.where is None else sql.where(query.where, table, parameters)
    text = f"SELECT count(*) FROM {table.name} WHERE {test}"  # noqa: S608  # `sql` quotes
    (found,) = database.execute(text, parameters).fetchone()
    return int(found if query.top is None else min(found, query.top))


def project(document: Mapping[str, Any], columns: tuple[Column, ...]) -> dict[str, Any]:
    """The columns of a document; one that is not there is left out."""
    found = {column.name: _lookup(document, column.path.steps) for column in columns if column.path is not None}
    return {name: value for name, value in found.items() if value is not _ABSENT}


def token_of(text: str, place: Place) -> str:
    """A continuation token for this query."""
    return base64.urlsafe_b64encode(json.dumps([_digest(text), place.after, place.given]).encode()).decode()


def place_of(text: str, token: str) -> Place:
    """Where the token says to go on. Raises ServiceError for one of another query, or none at all."""
    if not token:
        return Place()
    try:
        digest, after, given = json.loads(base64.urlsafe_b64decode(token))
        if digest == _digest(text) and isinstance(after, str) and isinstance(given, int):
            return Place(after, given)
    except (ValueError, TypeError, RecursionError):
        pass
    raise invalid_argument("Expected a continuation token that this hub gave for this query, got another")


def _documents(database: sqlite3.Connection, query: Query, place: Place, limit: int) -> list[tuple[Any, ...]]:
    table, parameters = sql.TABLES[query.source], sql.Parameters([place.after])
    test = "" if query.where is None else f" AND {sql.where(query.where, table, parameters)}"
    columns = ", ".join((table.key, *table.columns))
    rows = f"SELECT {columns} FROM {table.name} WHERE {table.key} > ?{test}"  # noqa: S608  # `sql` quotes
    return database.execute(f"{rows} ORDER BY {table.key} LIMIT {limit}", parameters).fetchall()


def _groups(database: sqlite3.Connection, query: Query, place: Place, limit: int) -> list[tuple[Any, ...]]:
    table, parameters = sql.TABLES[query.source], sql.Parameters()
    test = "" if query.where is None else f" WHERE {sql.where(query.where, table, parameters)}"
    columns = ", ".join(sql.column(column, table) for column in query.columns)
    keys = ", ".join(sql.json_of(path, table) for path in query.group_by)
    grouping = f" GROUP BY {keys} ORDER BY {keys}" if keys else ""
    groups = f"SELECT {columns} FROM {table.name}{test}{grouping}"  # noqa: S608  # `sql` quotes
    rows = database.execute(f"{groups} LIMIT {limit} OFFSET {place.given}", parameters)
    return [(_group(query.columns, row),) for row in rows]


def _group(columns: tuple[Column, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    values = zip(columns, row, strict=True)
    return {column.name: _group_value(column, value) for column, value in values if value is not None}


def _group_value(column: Column, value: Any) -> Any:
    if column.function is None:
        return json.loads(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _lookup(document: Mapping[str, Any], steps: tuple[str, ...]) -> object:
    value: object = document
    for step in steps:
        if not isinstance(value, Mapping) or step not in value:
            return _ABSENT
        value = value[step]
    return value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
