"""Data sets of the Hugging Face hub, by name, where the package and the network allow.

`datasets` brings pyarrow, aiohttp and a dozen more, so it is an extra of its own; everything else works without it.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.errors import ExtraNotInstalledError
from simulations.datasets.errors import DatasetError
from simulations.datasets.raw import Raw
from simulations.datasets.settings import HuggingFaceData
from simulations.problem import Data


def load_hugging_face(settings: HuggingFaceData) -> Raw:
    """Two splits of a data set, in memory; images as `(channels, height, width)` from 0 to 1.

    Raises:
        ExtraNotInstalledError: The package `datasets` is missing.
        DatasetError: The data set cannot be had, or has not the columns that the settings name.
    """
    train, test = _split(settings, settings.train_split), _split(settings, settings.test_split)
    names, labels = np.unique(np.concatenate([_labels(settings, part) for part in (train, test)]), return_inverse=True)
    groups = None
    if settings.groups is not None:
        groups = torch.from_numpy(
            np.unique(np.asarray(_column(settings, train, settings.groups)), return_inverse=True)[1]
        )
    return Raw(
        name=settings.name,
        train=Data(_inputs(settings, train), torch.from_numpy(labels[: len(train)])),
        test=Data(_inputs(settings, test), torch.from_numpy(labels[len(train) :])),
        classes=len(names),
        groups=groups,
    )


def _split(settings: HuggingFaceData, split: str) -> Any:  # Any: `datasets` is untyped here
    try:
        # Half a second and 60 MB: only who names such a data set pays.
        from datasets import load_dataset
    except ImportError as error:
        raise ExtraNotInstalledError(f"The data set {settings.name!r}", extra="huggingface") from error
    try:
        return load_dataset(settings.name, settings.subset, split=split, revision=settings.revision)
    # The library raises whatever its parts raise: connection, parsing, file system.
    except Exception as error:
        raise DatasetError(
            f"Expected the split {split!r} of the Hugging Face data set {settings.name!r}, got {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason'}",
            hint='Without a network, use data at hand: `kind = "task"`, `"file"` or `"synthetic"`.',
        ) from error


def _column(settings: HuggingFaceData, part: Any, name: str) -> Any:
    if name not in part.column_names:
        raise DatasetError(f"Expected the column {name!r} in {settings.name!r}, got {', '.join(part.column_names)}")
    return part[name]


def _labels(settings: HuggingFaceData, part: Any) -> NDArray[Any]:
    return np.asarray(_column(settings, part, settings.label))


def _inputs(settings: HuggingFaceData, part: Any) -> torch.Tensor:
    values = [np.asarray(value) for value in _column(settings, part, settings.inputs)]
    if len({value.shape for value in values}) != 1 or values[0].dtype.kind not in "fiub":
        raise DatasetError(
            f"Expected numbers of one shape in {settings.inputs!r} of {settings.name!r}, got others",
            hint="Resize images first; text needs features of your own: save them as .npz.",
        )
    stacked = np.stack(values)
    scaled = stacked.astype(np.float32) / 255 if stacked.dtype == np.uint8 else stacked.astype(np.float32)
    match scaled.ndim, stacked.dtype:
        case 3, np.uint8:
            scaled = scaled[:, None]
        case 4, np.uint8:
            scaled = scaled.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(scaled))
