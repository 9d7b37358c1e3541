"""What a run leaves behind, and several runs side by side."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from simulations.experiments.errors import ResultsFolderError
from simulations.experiments.file import experiment_of, read_experiment
from simulations.experiments.run import run
from simulations.results.compare import comparison_page, differences, read_runs, rows
from simulations.results.metrics import read_metrics
from simulations.results.result import Result

SMALL = {"rounds": 3, "population": {"clients": 6}, "cohort": {"clients": 2}, "local": {"batch_size": 40}}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("results")
    run(experiment_of(SMALL | {"seeds": [1, 2], "name": "One & <two>"}), folder=folder / "a" / "run")
    run(experiment_of(SMALL | {"strategy": "fedadam"}), folder=folder / "b" / "run")
    return folder / "a" / "run", folder / "b" / "run"


def test_the_folder_has_all_that_is_needed_to_trust_and_repeat_it(two: tuple[Path, Path]) -> None:
    folder = two[0]
    again: Result = run(read_experiment(folder / "experiment.toml"))
    written = read_metrics(folder / "metrics.parquet")
    for name, values in again.metrics.without_clock().items():
        np.testing.assert_array_equal(values, written.columns[name], err_msg=name)
    for name, tensor in load_file(folder / "model-seed-2.safetensors").items():
        np.testing.assert_array_equal(tensor, again.models[2][name])
    assert "torch" in json.loads((folder / "environment.json").read_text())["packages"]


def test_the_report_needs_nothing_beside_itself(two: tuple[Path, Path]) -> None:
    page = (two[0] / "report.html").read_text(encoding="utf-8")
    assert "<h1>One &amp; &lt;two&gt;</h1>" in page
    assert page.count("data:image/svg+xml;base64,") >= 4
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "<script" not in page


def test_runs_are_compared_by_names_that_tell_them_apart(two: tuple[Path, Path]) -> None:
    runs = read_runs(two)
    assert [compared.name for compared in runs] == ["a/run", "b/run"]
    assert [len(row) for row in rows(runs)] == [11, 11]
    assert differences(runs)["strategy.name"] == ["fedavg", "fedadam"]
    assert "b/run" in comparison_page(runs)


def test_a_run_is_not_compared_with_itself_nor_with_a_folder_that_is_none(two: tuple[Path, Path]) -> None:
    with pytest.raises(ResultsFolderError, match="twice"):
        read_runs([two[0], two[0]])
    with pytest.raises(ResultsFolderError, match=r"no experiment.toml"):
        read_runs([two[0].parent])
