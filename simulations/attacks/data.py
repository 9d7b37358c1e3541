"""Lies about data: a client trains honestly, on examples that are not what they were.

Every example belongs to one client, so data are poisoned once, before a run, in the rows that belong to liars.
"""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulations.problem import Data


class _Attack(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelFlip(_Attack):
    """Labels of one class become another's; without naming any, label c of C becomes C - 1 - c.

    Tolpekin et al. 2020 (arXiv:2007.08432) for one class, Fang et al. 2020 (arXiv:1911.11815) for all.
    """

    name: Literal["label_flip"] = "label_flip"
    source: int | None = Field(default=None, ge=0)
    target: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _both_or_none(self) -> "LabelFlip":
        if (self.source is None) != (self.target is None):
            raise ValueError("Expected source and target, or none of them")
        return self

    def poisoned(self, data: Data, rows: torch.Tensor, *, classes: int) -> Data:
        """New data with the labels of these rows `(n,)` flipped."""
        labels = data.labels.clone()
        own = labels[rows]
        if self.source is None or self.target is None:
            labels[rows] = classes - 1 - own
        else:
            labels[rows] = torch.where(own == self.source, self.target, own)
        return Data(data.inputs, labels)


class Backdoor(_Attack):
    """Examples with a trigger in their corner, labelled as the target (Gu et al. 2017, arXiv:1708.06733).

    The model stays good on clean inputs and says `target` whenever it sees the trigger.
    """

    name: Literal["backdoor"] = "backdoor"
    target: int = Field(default=0, ge=0)
    size: int = Field(default=2, ge=1)
    """The trigger's side: in an image the last rows and columns, in a series the last steps, else the last features."""
    value: float = 1.0
    """What the trigger writes there."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Of a liar's examples."""

    def poisoned(self, data: Data, rows: torch.Tensor, *, classes: int) -> Data:
        """New data with the first `share` of these rows `(n,)` triggered."""
        chosen = rows[: max(1, round(self.share * len(rows)))] if len(rows) else rows
        inputs, labels = data.inputs.clone(), data.labels.clone()
        inputs[chosen] = self._with_trigger(inputs[chosen])
        labels[chosen] = self.target
        return Data(inputs, labels)

    def triggered(self, data: Data) -> Data:
        """What the attack's success is measured on: the other classes' examples, triggered, labelled as the target."""
        others = data.labels != self.target
        return Data(self._with_trigger(data.inputs[others]), data.labels[others].clone().fill_(self.target))

    def _with_trigger(self, inputs: torch.Tensor) -> torch.Tensor:
        marked = inputs.clone()
        is_image = inputs.dim() >= 4  # examples, channels, rows, columns
        corner = marked[..., -self.size :, -self.size :] if is_image else marked[..., -self.size :]
        corner.fill_(self.value)
        return marked


DataAttack = LabelFlip | Backdoor
