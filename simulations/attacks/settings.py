"""An attack as an experiment's file says it: what is done, and by which share of the clients.

[[attacks]]
share = 0.2
attack = {name = "backdoor", target = 7}
"""

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from simulations.attacks.data import Backdoor, LabelFlip
from simulations.attacks.updates import ALittle, Gaussian, Scaling, SignFlip
from simulations.experiments.section import short
from simulations.keyed import Stream

Attack = Annotated[SignFlip | Scaling | Gaussian | ALittle | LabelFlip | Backdoor, Field(discriminator="name")]


class AttackSettings(BaseModel):
    """Some clients, and what they do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(gt=0, le=1)
    """Of all clients; each is a liar by a coin of its own, the same in every round."""
    attack: Annotated[Attack, short("name")]

    def liars_among(self, clients: ArrayLike, *, seed: int) -> NDArray[np.bool_]:
        """Which of these clients lie; with one seed, a larger share has all the liars of a smaller."""
        return np.asarray(Stream.named(seed, "liars").uniform(clients) < self.share)
