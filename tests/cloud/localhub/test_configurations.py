"""Automatic configurations: what several make of one twin, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub.configurations import Configuration, Configured, configure, parse_target, updated
from cloud.localhub.errors import ServiceError
from cloud.localhub.query.tree import Source

_VALUES = st.integers(0, 9) | st.dictionaries(st.sampled_from("xy"), st.integers(0, 9), min_size=1, max_size=2)
_PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=2).map(
    lambda steps: ".".join(("properties.desired", *steps))
)
_DESIRED = st.dictionaries(st.sampled_from("abcz"), _VALUES, max_size=3)
_SETS = st.lists(
    st.tuples(st.integers(0, 2), st.dictionaries(_PATHS, _VALUES, min_size=1, max_size=3)), max_size=4
).map(lambda told: [_configuration(f"c{n}", *each) for n, each in enumerate(told)])


def _configuration(name: str, priority: int, content: dict[str, Any]) -> Configuration:
    return Configuration(name, created=f"t-{name}", updated="t", priority=priority, content=content)


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _at(document: Any, path: str) -> Any:
    for step in path.split(".")[2:]:
        document = document[step]
    return document


@given(_DESIRED, _SETS)
def test_configuring_again_changes_nothing(desired: dict[str, Any], targeting: list[Configuration]) -> None:
    once, configured = configure(desired, Configured(), targeting)
    assert configure(once, configured, targeting[::-1]) == (once, configured)


@given(_DESIRED, _SETS)
def test_what_has_the_highest_priority_is_there_in_full(
    desired: dict[str, Any], targeting: list[Configuration]
) -> None:
    document, configured = configure(desired, Configured(), targeting)
    for highest in sorted(targeting, key=lambda each: (each.priority, each.created))[-1:]:
        assert configured.states[highest.id] == "Applied"
        for path, value in highest.content.items():
            is_alone = not any(other != path and _overlap(other, path) for other in highest.content)
            assert not is_alone or _at(document, path) == value
    assert configured.states.keys() == {each.id for each in targeting}


@given(_SETS, _SETS)
def test_what_no_configuration_sets_any_more_leaves(first: list[Configuration], second: list[Configuration]) -> None:
    """Whatever came before, the twin ends as if only the second set had been."""
    own = {"z": 1}
    document, configured = configure(own, Configured(), first)
    assert configure(document, configured, second) == configure(own, Configured(), second)
    assert configure(document, configured, []) == (own, Configured())


def test_a_path_is_decided_by_priority_then_by_age_and_the_others_are_merely_targeted() -> None:
    low = _configuration("low", 1, {"properties.desired.rate": 1, "properties.desired.unit": "s"})
    high = _configuration("high", 9, {"properties.desired.rate": 2})
    newer = _configuration("newer", 9, {"properties.desired.rate": 3})
    document, configured = configure({"mine": True}, Configured(), [high, newer, low])
    assert document == {"mine": True, "rate": 3, "unit": "s"}
    assert configured.states == {"low": "Applied", "high": "Targeted", "newer": "Applied"}
    assert Configured.loads(configured.dumps()) == configured


def test_one_that_would_make_the_twin_too_large_fails_and_the_others_are_applied() -> None:
    large = _configuration("large", 5, {f"properties.desired.k{n}": "x" * 4000 for n in range(8)})
    small = _configuration("small", 1, {"properties.desired.rate": 1})
    document, configured = configure({"mine": "x" * 4000}, Configured(), [large, small])
    assert document == {"mine": "x" * 4000, "rate": 1}
    assert configured.states == {"large": "Failed", "small": "Applied"}


def test_a_target_is_everybody_nobody_devices_or_modules() -> None:
    assert (parse_target("").source, parse_target("*").source) == (None, Source.DEVICES)
    assert parse_target("tags.site='lyon'").source is Source.DEVICES
    assert parse_target("FROM devices.modules WHERE moduleId='camera'").source is Source.MODULES


_CONTENT = {"deviceContent": {"properties.desired.rate": 1}}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Upper", {"content": _CONTENT}),
        ("a b", {"content": _CONTENT}),
        ("c", {}),
        ("c", {"content": {"deviceContent": {"rate": 1}}}),
        ("c", {"content": {"deviceContent": {"properties.desired.": 1}}}),
        ("c", {"content": {"deviceContent": {"properties.desired.rate": None}}}),
        ("c", {"content": {"deviceContent": {"properties.desired": 1}}}),
        ("c", {"content": {"deviceContent": {"properties.desired.a": "x" * 5000}}}),
        ("c", {"content": {"modulesContent": {"$edgeAgent": {}}}}),
        ("c", {"content": {**_CONTENT, "moduleContent": {"properties.desired.a": 1}}}),
        ("c", {"content": _CONTENT, "priority": -1}),
        ("c", {"content": _CONTENT, "labels": {"a": 1}}),
        ("c", {"content": _CONTENT, "targetCondition": "tags.a ="}),
        ("c", {"content": _CONTENT, "targetCondition": "FROM devices.modules WHERE moduleId='m'"}),
        ("c", {"content": {"moduleContent": {"properties.desired.a": 1}}, "targetCondition": "*"}),
        ("c", {"content": _CONTENT, "metrics": {"queries": {"m": "SELECT"}}}),
        ("c", {"content": _CONTENT, "metrics": {"queries": {"m": "SELECT * FROM devices.jobs"}}}),
        ("c", {"content": _CONTENT, "metrics": {"queries": {f"m{n}": "SELECT * FROM devices" for n in range(6)}}}),
    ],
)
def test_what_cannot_be_a_configuration_is_refused(name: str, body: dict[str, Any]) -> None:
    with pytest.raises(ServiceError) as refusal:
        updated(None, name, body, now="now")
    assert refusal.value.status in (400, 413)


def test_the_content_stays_as_it_was_created() -> None:
    made = updated(None, "c", {"content": _CONTENT, "priority": 1}, now="now")
    assert updated(made, "c", {"content": _CONTENT, "priority": 2}, now="later").priority == 2
    with pytest.raises(ServiceError, match="make a new configuration"):
        updated(made, "c", {"content": {"deviceContent": {"properties.desired.rate": 2}}}, now="later")
