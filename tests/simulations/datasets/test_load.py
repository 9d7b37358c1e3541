"""Problems from tasks, from a seed, from files; and what is wrong with data is said before any round."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter

from simulations.datasets.errors import DatasetError
from simulations.datasets.load import load_problem
from simulations.datasets.settings import Dataset, FileData, SyntheticData, TaskData
from simulations.experiments.errors import ExperimentError
from simulations.models.families import Cnn, Conv1d, Linear, Mlp, Model
from simulations.problem import cross_entropy


def test_a_task_is_its_devices_data_with_its_own_model_and_loss() -> None:
    problem = load_problem(TaskData(name="physio"), seed=1)
    assert problem.classes == 7
    assert problem.groups is not None
    assert set(problem.groups.tolist()) == set(range(10))
    assert problem.losses is cross_entropy
    outputs = problem.model(3)(problem.train.inputs[:5])
    assert outputs.shape == (5, 7)


def test_a_private_task_trains_what_its_private_campaigns_train() -> None:
    model = load_problem(TaskData(name="physio", private=True), seed=1).model(0)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        "head.weight",
        "head.bias",
    }


def test_test_data_are_the_roles_that_were_asked_for() -> None:
    unseen, validation = (
        load_problem(TaskData(name="digits", measured_on=role), seed=1).test for role in ("unseen", "validation")
    )
    assert not torch.equal(unseen.inputs[:5], validation.inputs[:5])


@pytest.mark.parametrize("shape", [(8,), (6, 64), (3, 12, 12)])
def test_synthetic_data_of_any_shape_can_be_learned(shape: tuple[int, ...]) -> None:
    settings = SyntheticData(shape=shape, classes=4, examples=600, test_examples=200, noise=0.3, groups=5)
    problem = load_problem(settings, seed=1)
    again = load_problem(settings, seed=1)
    assert torch.equal(problem.train.inputs, again.train.inputs)
    assert problem.train.inputs.shape == (600, *shape)
    assert problem.groups is not None
    assert set(problem.groups.tolist()) == set(range(5))
    model = problem.model(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        rows = torch.arange(step * 50, step * 50 + 50) % 600
        optimizer.zero_grad()
        loss = problem.losses(model(problem.train.inputs[rows]), problem.train.labels[rows]).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(problem.test.inputs).argmax(dim=1) == problem.test.labels).float().mean()
    assert accuracy > 0.6


def test_the_paper_s_models_have_the_paper_s_sizes() -> None:
    images = SyntheticData(shape=(1, 28, 28), examples=10, test_examples=10)
    models: tuple[Model, ...] = (Mlp(hidden=(200, 200)), Cnn(), Linear())
    networks = [load_problem(images, seed=1, model=model).model(0) for model in models]
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert sizes == [199_210, 1_663_370, 7_850]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_has_labels_groups_and_numbers(tmp_path: Path, suffix: str) -> None:
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.normal(5, 3, (100, 3)), columns=["a", "b", "c"])
    table["site"], table["kind"] = np.arange(100) % 4 + 20, np.where(table["a"] > 5, "high", "low")
    path = tmp_path / f"readings{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    problem = load_problem(FileData(path=path, label="kind", groups="site"), seed=1)
    assert (len(problem.train), len(problem.test), problem.classes) == (80, 20, 2)
    assert problem.groups is not None
    assert len(problem.groups) == 80
    assert set(problem.groups.tolist()) == {0, 1, 2, 3}
    torch.testing.assert_close(problem.train.inputs.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    assert not torch.equal(
        load_problem(FileData(path=path, label="kind", groups="site"), seed=2).test.inputs[:3], problem.test.inputs[:3]
    )


def test_an_archive_may_bring_its_own_test_data(tmp_path: Path) -> None:
    path = tmp_path / "windows.npz"
    windows = np.random.default_rng(0).normal(size=(30, 3, 16)).astype(np.float32)
    np.savez(path, inputs=windows, labels=np.arange(30) % 3, test_inputs=windows[:7], test_labels=np.arange(7) % 3)
    problem = load_problem(FileData(path=path, standardise=False), seed=1, model=Conv1d(channels=(8,)))
    assert len(problem.test) == 7
    assert torch.equal(problem.train.inputs, torch.from_numpy(windows))
    assert problem.model(0)(problem.train.inputs).shape == (30, 3)


def write_table(path: Path, **columns: list[object]) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_bad_data_are_named_before_any_round(tmp_path: Path) -> None:
    table = write_table(tmp_path / "a.csv", x=[1.0, 2.0, float("nan")], label=[0, 1, 0])
    pickled = tmp_path / "p.npz"
    np.savez(pickled, inputs=np.array([{}], dtype=object), labels=[0])
    short = tmp_path / "s.npz"
    np.savez(short, inputs=np.zeros((3, 2)), labels=[0, 1], test_inputs=np.zeros((1, 2)), test_labels=[0])
    wrong: list[tuple[Dataset, str]] = [
        (FileData(path=tmp_path / "nothing.csv"), "got none at"),
        (FileData(path=tmp_path), "got none at"),
        (FileData(path=table), "NaN or infinity in example"),
        (FileData(path=table, label="kind"), "Expected the column 'kind'"),
        (FileData(path=table, groups="x"), "got none in row 2"),
        (FileData(path=write_table(tmp_path / "w.csv", x=["a", "b"], label=[0, 1])), "got others in 'x'"),
        (FileData(path=pickled), "without pickles"),
        (FileData(path=short), "one label for each of 3"),
    ]
    for settings, said in wrong:
        with pytest.raises(DatasetError, match=said):
            load_problem(settings, seed=1)


def test_a_model_for_other_inputs_is_refused() -> None:
    with pytest.raises(ExperimentError, match="3 dimensions for the model 'cnn'"):
        load_problem(SyntheticData(shape=(8,), examples=10, test_examples=10), seed=1, model=Cnn())


def test_a_task_can_be_learned_with_another_model_than_its_own() -> None:
    model = load_problem(TaskData(name="digits"), seed=1, model=Mlp(hidden=(16,))).model(0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 64 * 16 + 16 + 16 * 10 + 10


def test_settings_are_typed_by_their_kind() -> None:
    adapter: TypeAdapter[Dataset] = TypeAdapter(Dataset)
    assert adapter.validate_python({"kind": "task", "name": "physio"}) == TaskData(name="physio")
