"""Where the examples come from, as an experiment's file says it: by kind."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskData(_Settings):
    """A task of the product: its devices' data pooled, its own model and loss; `natural` deals it to its devices."""

    kind: Literal["task"] = "task"
    name: str
    private: bool = False
    """Whether only the parameters are trained that the task trains in campaigns with privacy."""
    measured_on: Literal["unseen", "validation"] = "unseen"
    """Whose data accuracy is measured on. Choose by `validation`; report on `unseen`."""


class SyntheticData(_Settings):
    """Made from a seed, in any shape: vectors `(d,)`, sensor windows `(channels, length)`, images `(c, h, w)`."""

    kind: Literal["synthetic"] = "synthetic"
    shape: tuple[int, ...] = Field(default=(32,), min_length=1, max_length=3)
    classes: int = Field(default=10, ge=2)
    examples: int = Field(default=10_000, ge=1)
    test_examples: int = Field(default=2_000, ge=1)
    noise: float = Field(default=1.0, ge=0)
    """Standard deviation added to each class's own pattern, whose values are of size 1."""
    groups: int | None = Field(default=None, ge=1)
    """Examples come from so many sources (people, machines), each with a gain and an offset of its own."""


class FileData(_Settings):
    """A file of yours: `.npz`, `.csv` or `.parquet`.

    A table has a row for each example: a column of labels (numbers or names), perhaps one that says where the example
    comes from, and numbers. An `.npz` has `inputs`, `labels`, and perhaps `groups`, `test_inputs`, `test_labels`.
    """

    kind: Literal["file"] = "file"
    path: Path
    label: str = "label"
    """The column of labels (tables)."""
    groups: str | None = None
    """The column that says who or what an example comes from (tables)."""
    test_path: Path | None = None
    """Another file to measure accuracy on; nothing: a part of this one."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    standardise: bool = True
    """Whether each channel is shifted and scaled to mean 0 and standard deviation 1 of the training data."""


class HuggingFaceData(_Settings):
    """A data set of the Hugging Face hub, or a folder in its format; needs the extra `huggingface`."""

    kind: Literal["huggingface"] = "huggingface"
    name: str
    subset: str | None = None
    inputs: str = "image"
    """The column of inputs: images, or lists of numbers of one length."""
    label: str = "label"
    groups: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    revision: str | None = None
    """The commit of the data set; name it, and the experiment can be repeated."""


Dataset = Annotated[
    TaskData | SyntheticData | FileData | HuggingFaceData,
    Field(discriminator="kind"),
]
