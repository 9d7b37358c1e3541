"""How data are dealt to clients, as an experiment's file says it: one kind each, by name."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Iid(_Settings):
    """Shuffled and dealt evenly."""

    kind: Literal["iid"] = "iid"


class Dirichlet(_Settings):
    """Label skew, clients of one size (Hsu, Qi, Brown 2019, arXiv:1909.06335).

    Each client draws a mixture of classes from Dirichlet(alpha * prior) and its examples from the mixture, without
    replacement; the prior is the classes' share of the data. Large alpha: all alike. Alpha near 0: one class each.
    """

    kind: Literal["dirichlet"] = "dirichlet"
    alpha: float = Field(gt=0)


class DirichletByClass(_Settings):
    """Label skew, clients of differing sizes (Yurochkin et al. 2019, arXiv:1905.12022; flwr-datasets' Dirichlet).

    Each class is divided among the clients by a draw from Dirichlet(alpha). Drawn anew, up to 100 times, until each
    client holds `examples_min`.
    """

    kind: Literal["dirichlet_by_class"] = "dirichlet_by_class"
    alpha: float = Field(gt=0)
    examples_min: int = Field(default=1, ge=1)


class Shards(_Settings):
    """Sorted by label, cut into shards, so many shards to each client (McMahan et al. 2017, section 3)."""

    kind: Literal["shards"] = "shards"
    shards: int = Field(default=2, ge=1)


class Quantity(_Settings):
    """Quantity skew: sizes by a log-normal, or by Dirichlet(alpha) over clients (Li et al. 2022, arXiv:2102.02079)."""

    kind: Literal["quantity"] = "quantity"
    sigma: float | None = Field(default=None, gt=0)
    """Spread of the logarithm of the sizes."""
    alpha: float | None = Field(default=None, gt=0)
    examples_min: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.sigma is None) == (self.alpha is None):
            raise ValueError("expected sigma (log-normal sizes) or alpha (Dirichlet), and not both")
        return self


class Natural(_Settings):
    """By who or what the examples come from: a subject, a writer, a column of the data.

    With fewer clients than groups, whole groups are dealt; a group is never divided.
    """

    kind: Literal["natural"] = "natural"


class Flower(_Settings):
    """A partitioner of flwr-datasets, which must be installed (extra `huggingface`), by its class's name."""

    kind: Literal["flower"] = "flower"
    partitioner: str
    options: dict[str, float | int | str | bool | list[float] | list[int]] = Field(default_factory=dict)
    """Its constructor's arguments, but for the number of clients, the column to deal by and the seed."""


class Drawn(_Settings):
    """Clients share the examples: each draws its own from all, with a mixture of classes of its own.

    The only kind for more clients than examples, and for millions of clients: nothing is stored for a client, its
    examples are computed when it is asked. No example is twice with one client.
    """

    kind: Literal["drawn"] = "drawn"
    examples: int = Field(ge=1)
    """Median number with a client."""
    sigma: float = Field(default=0.0, ge=0)
    """Spread of the logarithm of the number; 0: all hold the same."""
    alpha: float | None = Field(default=None, gt=0)
    """Of the Dirichlet distribution of mixtures, as in `dirichlet`; nothing: clients are alike."""


Dealt = Annotated[
    Iid | Dirichlet | DirichletByClass | Shards | Quantity | Natural | Flower,
    Field(discriminator="kind"),
]
"""Each example to one client."""


class FeatureShift(_Settings):
    """Each client sees its data in a way of its own, on top of another partition.

    `gain` and `offset` are spreads, in standard deviations of each input channel: another camera, another wrist.
    `noise` is the standard deviation of the last client's added noise, growing evenly from the first (Li et al. 2022).
    `rotation_deg` turns images by an angle of the client's own, up to this many degrees either way.
    """

    kind: Literal["feature_shift"] = "feature_shift"
    of: Dealt = Field(default_factory=Iid)
    gain: float = Field(default=0.0, ge=0)
    offset: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.0, ge=0)
    rotation_deg: float = Field(default=0.0, ge=0, le=180)


Partition = Annotated[
    Iid | Dirichlet | DirichletByClass | Shards | Quantity | Natural | Flower | FeatureShift | Drawn,
    Field(discriminator="kind"),
]
