"""`check` finds what is wrong, one finding for each broken promise, and passes the reference tasks."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from shared.tasks.__main__ import main
from shared.tasks.check import check_task
from shared.tasks.digits.task import DigitsTask
from shared.tasks.physio.trees import PhysioTreesTask
from shared.tasks.registry import load_task
from shared.tasks.task import Examples, Role, Task


@pytest.mark.parametrize("name", ["digits", "physio", "physio_trees"])
def test_the_reference_tasks_are_sound(name: str) -> None:
    assert [finding for finding in check_task(load_task(name)) if not finding.sound] == []


class _MoreClasses(DigitsTask):
    schema = dataclasses.replace(DigitsTask.schema, classes=tuple("0123456789x"))


class _LeakingSplit(DigitsTask):
    def central_data(self, role: Role) -> Examples:
        return super().central_data(Role.PUBLIC if role is Role.UNSEEN else role)


class _UnseededModel(DigitsTask):
    def model(self, *, seed: int):  # type: ignore[no-untyped-def]  # as wrong as a user's
        return super().model(seed=int(np.random.default_rng().integers(1 << 30)))


class _MoreFigures(PhysioTreesTask):
    boosting = dataclasses.replace(PhysioTreesTask.boosting, features=25)


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        (_MoreFigures(), "parameters", "(24, 7) features and classes, as the schema says, got (25, 7)"),
        (_MoreClasses(), "schema", "one column a class"),
        (_LeakingSplit(), "splits", "both public and unseen"),
        (_UnseededModel(), "parameters", "same weights from the same seed"),
    ],
)
def test_a_broken_promise_is_the_one_finding(task: Task, name: str, message: str) -> None:
    broken = [finding for finding in check_task(task) if not finding.sound]
    assert [finding.name for finding in broken] == [name]
    assert message in broken[0].message


def test_the_command_lists_writes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    assert {"digits", "physio"} <= json.loads(capsys.readouterr().out).keys()
    assert main(["data", "digits", "--json"]) == 0
    slices = json.loads(capsys.readouterr().out)["slices"]
    assert main(["data", "digits", "--slice", *slices[:2], "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"] == 160
