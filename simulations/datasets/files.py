"""Reads a user's own data: NumPy archives and tables."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from shared.errors import ExtraNotInstalledError
from simulations.datasets.errors import DatasetError
from simulations.datasets.raw import Raw
from simulations.datasets.settings import FileData
from simulations.problem import Data

if TYPE_CHECKING:
    import pandas as pd

_READERS = {".csv": "read_csv", ".parquet": "read_parquet"}


def load_file(settings: FileData, *, seed: int) -> Raw:
    """The file's examples, split into training and test data.

    Raises:
        DatasetError: There is no such file, or it is not what the settings say.
    """
    parts = _read(settings, settings.path)
    if settings.test_path is not None:
        held_out = _read(settings, settings.test_path)
        parts = {**parts, "test_inputs": held_out["inputs"], "test_labels": held_out["labels"]}
    if "test_inputs" not in parts:
        parts = _split(parts, settings.test_fraction, seed)
    names, labels = np.unique(np.concatenate([parts["labels"], parts["test_labels"]]), return_inverse=True)
    train_inputs, test_inputs = (parts[name].astype(np.float32) for name in ("inputs", "test_inputs"))
    if settings.standardise:
        train_inputs, test_inputs = _standardised(train_inputs, test_inputs)
    groups = np.unique(parts["groups"], return_inverse=True)[1] if "groups" in parts else None
    size = len(parts["labels"])
    return Raw(
        name=settings.path.stem,
        train=Data(torch.from_numpy(train_inputs), torch.from_numpy(labels[:size])),
        test=Data(torch.from_numpy(test_inputs), torch.from_numpy(labels[size:])),
        classes=len(names),
        groups=None if groups is None else torch.from_numpy(groups),
    )


# Any: arrays of numbers or of names; what they must be is checked here.
Parts = dict[str, NDArray]  # type: ignore[type-arg]


def _read(settings: FileData, path: Path) -> Parts:
    if not path.is_file():
        raise DatasetError(f"Expected a file of data, got none at {path}")
    if path.suffix == ".npz":
        return _read_archive(path)
    if path.suffix not in _READERS:
        raise DatasetError(f"Expected .npz, .csv or .parquet, got {path.name}")
    return _columns(settings, path, _read_table(path))


def _read_archive(path: Path) -> Parts:
    try:
        with np.load(path, allow_pickle=False) as archive:
            parts = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DatasetError(f"Expected a NumPy archive without pickles, got {path.name}: {error}") from error
    if missing := {"inputs", "labels"} - set(parts):
        raise DatasetError(f"Expected the arrays 'inputs' and 'labels' in {path.name}, got no {sorted(missing)[0]!r}")
    return parts


def _read_table(path: Path) -> "pd.DataFrame":
    try:
        # pandas costs half a second to load; only tables pay for it.
        import pandas as pd
    except ImportError as error:
        raise ExtraNotInstalledError(f"Reading {path.name}", extra="tasks") from error
    try:
        return getattr(pd, _READERS[path.suffix])(path)
    except ImportError as error:
        raise ExtraNotInstalledError(f"Reading {path.name}", extra="sim") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"Expected a table, got {path.name}: {error}") from error


def _columns(settings: FileData, path: Path, table: "pd.DataFrame") -> Parts:
    named = [name for name in (settings.label, settings.groups) if name is not None]
    for name in named:
        if name not in table.columns:
            known = ", ".join(map(str, table.columns[:20]))
            raise DatasetError(f"Expected the column {name!r} in {path.name}, got {known}")
        if table[name].isna().any():
            row = int(table[name].isna().to_numpy().argmax())
            raise DatasetError(f"Expected a value in every row of {name!r} in {path.name}, got none in row {row}")
    features = table.drop(columns=named)
    if words := [str(name) for name in features.columns if features[name].dtype.kind not in "fiub"]:
        raise DatasetError(
            f"Expected numbers in every column of {path.name} but {', '.join(named)}, got others in {words[0]!r}",
            hint="Encode the column as numbers, or leave it out of the file.",
        )
    parts: Parts = {"inputs": features.to_numpy(np.float32), "labels": table[settings.label].to_numpy()}
    return parts if settings.groups is None else {**parts, "groups": table[settings.groups].to_numpy()}


def _split(parts: Parts, fraction: float, seed: int) -> Parts:
    """Some examples, chosen by the seed, become test data."""
    size = len(parts["labels"])
    order = np.random.default_rng([seed, 0x7E57]).permutation(size)
    test, train = np.split(order, [min(max(1, round(fraction * size)), size - 1)])
    held_out = {f"test_{name}": parts[name][test] for name in ("inputs", "labels")}
    return {**{name: values[train] for name, values in parts.items()}, **held_out}


def _standardised(
    train: NDArray[np.float32], test: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    axes = (0, *range(2, train.ndim))
    mean, spread = train.mean(axis=axes, keepdims=True), train.std(axis=axes, keepdims=True)
    spread = np.where(spread > 0, spread, 1)
    return ((train - mean) / spread).astype(np.float32), ((test - mean) / spread).astype(np.float32)
