"""A query as a tree of frozen values: what `language` reads and `sql` compiles."""

from dataclasses import dataclass
from enum import StrEnum

Scalar = str | int | float | bool | None


class Source(StrEnum):
    """What FROM names."""

    DEVICES = "devices"
    MODULES = "devices.modules"
    JOBS = "devices.jobs"


@dataclass(frozen=True)
class Path:
    """Where in the document: `tags.site` is `("tags", "site")`."""

    steps: tuple[str, ...]


@dataclass(frozen=True)
class Literal:
    value: Scalar


@dataclass(frozen=True)
class Compare:
    left: Path | Literal
    operator: str
    right: Path | Literal


@dataclass(frozen=True)
class In:
    path: Path
    values: tuple[Scalar, ...]
    is_wanted: bool


@dataclass(frozen=True)
class Is:
    """What kind of value is there: `DEFINED`, `NULL`, `BOOL`, `NUMBER`, `STRING`, `OBJECT`, `ARRAY`, `PRIMITIVE`."""

    kind: str
    path: Path


@dataclass(frozen=True)
class Matches:
    """A text that starts with, ends with or contains another: `STARTSWITH`, `ENDSWITH`, `CONTAINS`."""

    function: str
    path: Path
    text: str


@dataclass(frozen=True)
class Not:
    inner: "Condition"


@dataclass(frozen=True)
class All:
    parts: tuple["Condition", ...]


@dataclass(frozen=True)
class Some:
    parts: tuple["Condition", ...]


Condition = Compare | In | Is | Matches | Not | All | Some


@dataclass(frozen=True)
class Column:
    """A value and its name in the answer; `function` is an aggregate's, which has no path where it is `COUNT`."""

    name: str
    path: Path | None
    function: str | None = None


@dataclass(frozen=True)
class Query:
    """No columns stand for `*`."""

    source: Source
    columns: tuple[Column, ...] = ()
    where: Condition | None = None
    group_by: tuple[Path, ...] = ()
    top: int | None = None

    @property
    def is_aggregate(self) -> bool:
        return bool(self.group_by) or any(column.function for column in self.columns)
