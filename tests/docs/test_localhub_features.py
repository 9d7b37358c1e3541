"""The table of the local hub's features is true: what it claims is proven by a test that exists."""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "reference" / "localhub.md"


class Feature(NamedTuple):
    """A row of the table."""

    name: str
    here: str
    remarks: str
    proof: str


def _features() -> list[Feature]:
    section = PAGE.read_text(encoding="utf-8").partition("## IoT Hub's features\n")[2].partition("\n## ")[0]
    rows = [line[1:-1].split("|") for line in section.splitlines() if line.startswith("| ")]
    return [Feature(*(cell.strip() for cell in row)) for row in rows[1:]]


def _tests_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_table_has_rows() -> None:
    assert len(_features()) > 20


@pytest.mark.parametrize("feature", _features(), ids=lambda feature: feature.name[:40])
def test_a_feature_is_there_and_proven_or_it_is_not_there(feature: Feature) -> None:
    assert feature.here in ("yes", "partly", "no")
    if feature.here == "no":
        assert feature.proof == ""
        return
    file, _, name = feature.proof.strip("`").partition("::")
    found = [path for path in (REPOSITORY / "tests").rglob(file) if name in _tests_in(path)]
    assert found, f"Expected a test {feature.proof} that proves {feature.name!r}"
