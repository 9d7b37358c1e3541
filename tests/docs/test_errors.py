"""The page of errors names every code, once, with the HTTP status that programs really get."""

import importlib
import pkgutil
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

from shared.errors import FleetlearnError

PACKAGES = ("cloud", "edge_agent", "fleet", "shared", "simulations")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
ROW = re.compile(r"^\| `(?P<code>[a-z0-9_]+)` \|(?: (?P<status>\d{3}|-) \|)?(?P<rest>.*) \|$", re.MULTILINE)


@cache
def error_classes() -> tuple[type[FleetlearnError], ...]:
    """Every error class of ours, in all packages."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            # `shared.__main__` runs the command as it is imported; migrations are Alembic's to import; kernels
            # need Triton, and a bench's peers an environment of their own.
            elsewhere = {"migrations", "kernels", "peers"}
            if module.name != "shared.__main__" and not elsewhere & set(module.name.split(".")):
                importlib.import_module(module.name)
    found: list[type[FleetlearnError]] = []
    waiting: list[type[FleetlearnError]] = [FleetlearnError]
    while waiting:
        below = waiting.pop().__subclasses__()
        found += below
        waiting += below
    return tuple(each for each in found if each.__module__.split(".")[0] in PACKAGES)


def rows() -> list[re.Match[str]]:
    return list(ROW.finditer(PAGE.read_text(encoding="utf-8")))


def status_by_code() -> dict[str, int]:
    """The status of each code that an HTTP answer can carry, as the two servers choose it."""
    from cloud.app import status_of
    from edge_agent.serving.app import STATUS_BY_ERROR

    statuses = {error.code: status for error, status in STATUS_BY_ERROR.items()}
    for each in error_classes():
        if each.__module__.split(".")[0] in ("cloud", "shared"):
            # Only the class decides the status; its constructor's arguments do not matter.
            statuses[each.code] = status_of(each.__new__(each))
    return statuses


def test_every_class_has_a_code_of_its_own() -> None:
    assert [each.__name__ for each in error_classes() if "code" not in vars(each)] == []


def test_no_program_has_two_meanings_for_one_code() -> None:
    classes: dict[str, list[type[FleetlearnError]]] = defaultdict(list)
    for each in error_classes():
        classes[each.code].append(each)
    for code, sharing in classes.items():
        packages = Counter(each.__module__.split(".")[0] for each in sharing)
        # What is in `shared` is in every program, so it shares with nobody.
        assert max(packages.values()) == 1, f"{code}: {sharing}"
        assert "shared" not in packages or len(packages) == 1, f"{code}: {sharing}"


def test_the_page_names_every_code_once_and_no_other() -> None:
    named = Counter(row["code"] for row in rows())
    assert set(named) == {each.code for each in error_classes()}
    assert [code for code, times in named.items() if times > 1] == []


def test_every_row_says_what_it_means_and_what_to_do() -> None:
    for row in rows():
        meaning, _, to_do = row["rest"].partition(" | ")
        assert meaning.strip(), row["code"]
        assert to_do.strip(), row["code"]


def test_the_page_tells_the_status_that_clients_get() -> None:
    told = {row["code"]: int(row["status"]) for row in rows() if row["status"] not in (None, "-")}
    expected = status_by_code()
    assert told == {code: expected[code] for code in told}


@pytest.mark.parametrize("family", ["cloud.errors:CoordinatorError", "shared.hub.port:HubError"])
def test_every_error_a_caller_can_get_tells_its_status(family: str) -> None:
    module, _, name = family.partition(":")
    base = getattr(importlib.import_module(module), name)
    told = {row["code"] for row in rows() if row["status"]}
    assert [each.code for each in error_classes() if issubclass(each, base) and each.code not in told] == []
