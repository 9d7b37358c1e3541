"""Automatic device configurations as values: what a set of them makes of one twin. Pure.

A configuration names paths of desired properties and their values, and a target condition. A twin that fulfils the
conditions of several takes each path from the one of highest priority, the newest of equals; a path that no
configuration sets any more leaves the twin. https://learn.microsoft.com/azure/iot-hub/iot-hub-automatic-device-management
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cloud.localhub.devices import etag_of
from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.query.language import parse, parse_condition
from cloud.localhub.query.tree import Condition, Source
from cloud.localhub.twins import SECTION_BYTES_MAX, Json, check_section, checked_object

METRICS_MAX = 5
LABELS_MAX = 10
_ID_CHARACTERS_MAX = 128
_ID_SPECIALS = "-:+%_#*?!(),=@;$'."
_ROOT = ("properties", "desired")
_PRIORITY_MAX = 2**31 - 1

Steps = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """Which twins a configuration is for; no condition stands for all, no source for none."""

    source: Source | None
    condition: Condition | None = None


@dataclass(frozen=True)
class Configuration:
    """One stored configuration. `content` maps `properties.desired...` to values; `is_for_modules` says whose."""

    id: str
    created: str
    updated: str
    version: int = 1
    schema_version: str = "1.0"
    target_condition: str = ""
    priority: int = 0
    is_for_modules: bool = False
    content: Json = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return etag_of(self.version)

    def dumps(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> "Configuration":
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Configured:
    """What configurations did to a twin: the state of each by its id, and the paths that they set."""

    states: dict[str, str] = field(default_factory=dict)
    owned: tuple[Steps, ...] = ()

    def dumps(self) -> str:
        states = {name: {"status": status} for name, status in self.states.items()}
        return json.dumps({"states": states, "owned": self.owned}, ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> "Configured":
        stored = json.loads(text)
        states = {name: state["status"] for name, state in stored.get("states", {}).items()}
        return cls(states, tuple(tuple(steps) for steps in stored.get("owned", ())))


def configure(desired: Json, before: Configured, targeting: list[Configuration]) -> tuple[Json, Configured]:
    """The desired properties that these configurations make of those of now, and what they did.

    A configuration is `Applied` if it decides at least one path, else `Targeted`. One that would make the twin too
    large is left out, as `Failed`.
    """
    document = desired
    for steps in before.owned:
        document = _without(document, steps)
    states: dict[str, str] = {}
    owned: dict[Steps, str] = {}
    for configuration in sorted(targeting, key=lambda each: (each.priority, each.created, each.id)):
        try:
            document = with_content(document, configuration.content)
        except ServiceError:
            states[configuration.id] = "Failed"
            continue
        for steps in map(_steps, configuration.content):
            owned = {other: name for other, name in owned.items() if other[: len(steps)] != steps}
            owned[steps] = configuration.id
        states[configuration.id] = "Targeted"
    states.update(dict.fromkeys(owned.values(), "Applied"))
    return document, Configured(dict(sorted(states.items())), tuple(sorted(owned)))


def parse_edge_content(body: Mapping[str, Any]) -> dict[str, Json]:
    """What one request sets, by module id, of the device itself by an empty one. Raises ServiceError."""
    modules = _object(body.get("modulesContent") or {}, "modulesContent")
    if not modules:
        raise invalid_argument("Expected modulesContent, got none")
    every = {"": body.get("deviceContent") or {}, **modules}
    return {module_id: _checked_content(content) for module_id, content in every.items()}


def with_content(desired: Json, content: Json) -> Json:
    """The desired properties with the content's values at its paths. Raises ServiceError where they are too large."""
    for path, value in content.items():
        desired = _with(desired, _steps(path), value)
    check_section(desired, bytes_max=SECTION_BYTES_MAX, name="desired")
    return desired


def parse_target(text: str) -> Target:
    """A target condition: `*`, a condition on devices, or `FROM devices.modules WHERE ...`. Raises ServiceError."""
    text = text.strip()
    if not text:
        return Target(None)
    if text == "*":
        return Target(Source.DEVICES)
    if text[:5].upper() == "FROM ":
        query = parse(f"SELECT * {text}")
        if query.source is not Source.MODULES:
            raise invalid_argument(f"Expected a target condition on devices or FROM devices.modules, got {text[:80]!r}")
        return Target(query.source, query.where)
    return Target(Source.DEVICES, parse_condition(text))


def parse_metric(text: str) -> None:
    """Returns where it is a query that counts devices or modules. Raises ServiceError."""
    query = parse(text)
    if query.source is Source.JOBS:
        raise invalid_argument("Expected a metric's query FROM devices or devices.modules, got one of jobs")


def updated(
    existing: Configuration | None, configuration_id: str, body: Mapping[str, Any], *, now: str
) -> Configuration:
    """The configuration after a PUT of this body. Raises ServiceError for what cannot be.

    Labels, target condition, priority and metrics may change; the content is the configuration, and stays.
    """
    is_for_modules, content = _content(body)
    base = existing or Configuration(_checked_id(configuration_id), now, now, 0, content=content)
    if existing is not None and (is_for_modules, content) != (existing.is_for_modules, existing.content):
        raise invalid_argument("Expected the content as it was created, got another; make a new configuration for it")
    target_condition = _text(body, "targetCondition")
    if (parse_target(target_condition).source is Source.MODULES) != (is_for_modules and bool(target_condition)):
        raise invalid_argument("Expected moduleContent with FROM devices.modules, and deviceContent without")
    return replace(
        base,
        updated=now,
        version=base.version + 1,
        schema_version=_text(body, "schemaVersion") or "1.0",
        target_condition=target_condition,
        priority=_priority(body),
        is_for_modules=is_for_modules,
        labels=_texts(body.get("labels"), "labels", items_max=LABELS_MAX),
        metrics=_metrics(body),
    )


def service_form(configuration: Configuration, *, counts: Mapping[str, int], metrics: Mapping[str, int]) -> Json:
    """The configuration as the service API answers it; `counts` are of its states, `metrics` of its own queries."""
    condition = configuration.target_condition.strip()
    if configuration.is_for_modules:
        select, targeted = "select deviceId, moduleId from devices.modules", f"select deviceId, moduleId {condition}"
    else:
        select = "select deviceId from devices"
        targeted = f"{select} where {condition}"
    applied = f"{select} where configurations.[[{configuration.id}]].status = 'Applied'"
    content = {"moduleContent" if configuration.is_for_modules else "deviceContent": configuration.content}
    return {
        "id": configuration.id,
        "schemaVersion": configuration.schema_version,
        "labels": configuration.labels,
        "content": content,
        "targetCondition": configuration.target_condition,
        "createdTimeUtc": configuration.created,
        "lastUpdatedTimeUtc": configuration.updated,
        "priority": configuration.priority,
        "systemMetrics": {
            "results": {"targetedCount": sum(counts.values()), "appliedCount": counts.get("Applied", 0)},
            "queries": {"targetedCount": select if condition == "*" else targeted, "appliedCount": applied},
        },
        "metrics": {"results": dict(metrics), "queries": configuration.metrics},
        "etag": configuration.etag,
    }


def _with(document: Json, steps: Steps, value: Any) -> Json:
    """The document with the value there, whatever was there or in its way."""
    if not steps:
        return dict(value)
    below = document.get(steps[0])
    inner = value if len(steps) == 1 else _with(below if isinstance(below, dict) else {}, steps[1:], value)
    return {**document, steps[0]: inner}


def _without(document: Json, steps: Steps) -> Json:
    """The document without what is there, nor the objects that this empties."""
    if not steps:
        return {}
    inner: Json = {}
    if len(steps) > 1:
        below = document.get(steps[0])
        if not isinstance(below, dict):
            return document
        inner = _without(below, steps[1:])
    kept = {key: value for key, value in document.items() if key != steps[0]}
    return {**kept, steps[0]: inner} if inner else kept


def _steps(path: str) -> Steps:
    return tuple(path.split("."))[len(_ROOT) :]


def _content(body: Mapping[str, Any]) -> tuple[bool, Json]:
    content = body.get("content") or {}
    if not isinstance(content, dict):
        raise invalid_argument(f"Expected content as an object, got {type(content).__name__}")
    if content.get("modulesContent"):
        raise invalid_argument("Expected deviceContent or moduleContent: the local hub deploys no IoT Edge modules")
    told = [
        (kind == "moduleContent", content[kind]) for kind in ("deviceContent", "moduleContent") if content.get(kind)
    ]
    if len(told) != 1:
        raise invalid_argument(f"Expected one of deviceContent and moduleContent, got {len(told)}")
    is_for_modules, paths = told[0]
    return is_for_modules, _checked_content(paths)


def _checked_content(paths: object) -> Json:
    checked = {path: _checked_value(path, value) for path, value in _object(paths, "content").items()}
    with_content({}, checked)
    return checked


def _checked_value(path: str, value: Any) -> Any:
    if tuple(path.split("."))[: len(_ROOT)] != _ROOT or "" in path.split("."):
        raise invalid_argument(f"Expected content paths like properties.desired.name, got {path[:80]!r}")
    if value is None or (path == ".".join(_ROOT) and not isinstance(value, dict)):
        raise invalid_argument(f"Expected a value in {path[:80]!r} that a twin can hold, got {value!r}"[:200])
    return checked_object({"value": value}, name="content")["value"]


def _checked_id(configuration_id: str) -> str:
    is_valid = all(c.isascii() and (c.isdigit() or c.islower() or c in _ID_SPECIALS) for c in configuration_id)
    if not is_valid or not 0 < len(configuration_id) <= _ID_CHARACTERS_MAX:
        raise invalid_argument(
            f"Expected a configuration id of 1 to 128 lower-case letters, got {configuration_id[:80]!r}"
        )
    return configuration_id


def _metrics(body: Mapping[str, Any]) -> dict[str, str]:
    metrics = _object(body.get("metrics") or {}, "metrics")
    queries = _texts(metrics.get("queries"), "metrics.queries", items_max=METRICS_MAX)
    for query in queries.values():
        parse_metric(query)
    return queries


def _priority(body: Mapping[str, Any]) -> int:
    value = body.get("priority") or 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _PRIORITY_MAX:
        raise invalid_argument(f"Expected priority as a whole number of 0 or more, got {str(value)[:40]}")
    return value


def _object(value: object, name: str) -> Json:
    if not isinstance(value, dict):
        raise invalid_argument(f"Expected {name} as an object, got {type(value).__name__}")
    return value


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key) or ""
    if not isinstance(value, str):
        raise invalid_argument(f"Expected {key} as a text, got {type(value).__name__}")
    return value


def _texts(value: object, name: str, *, items_max: int) -> dict[str, str]:
    texts = _object(value or {}, name)
    if len(texts) > items_max or not all(isinstance(text, str) for text in texts.values()):
        raise invalid_argument(f"Expected {name} as an object of at most {items_max} texts")
    return texts
