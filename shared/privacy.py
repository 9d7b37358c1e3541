"""Privacy values that travel: what a campaign asks for, and what a device spent.

No accountant lives here. A mechanism event says everything an accountant needs; the device turns events into epsilon
itself, and refuses work that would overspend.

The unit of privacy is a task's own (`recording` for physio): all examples of one unit are protected together. The
neighbouring relation is add-or-remove one unit.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(gt=0, le=1)]


class PrivacySpec(BaseModel):
    """Example-level DP-SGD as a campaign asks for it, the same for all of its rounds."""

    model_config = ConfigDict(frozen=True)

    epsilon: float = Field(gt=0)
    """What all rounds together may cost one unit, at `delta`."""
    delta: float = Field(gt=0, lt=1)
    noise_multiplier: float = Field(gt=0)
    """Standard deviation of the noise on a sum of clipped gradients, in units of `max_grad_norm`."""
    max_grad_norm: float = Field(gt=0)
    """L2 bound of one unit's gradient in one step."""
    sampling_rate: Probability
    """Chance of a unit to be in a step (Poisson sampling)."""
    steps_per_round: int = Field(gt=0)
    rounds: int = Field(gt=0)


class MechanismEvent(BaseModel):
    """One use of the subsampled Gaussian mechanism on a device's data, as its ledger stores it."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    unit: str
    noise_multiplier: float = Field(gt=0)
    sampling_rate: Probability
    steps: int = Field(gt=0)
    adjacency: str = "add_or_remove_one"


class PrivacySpent(BaseModel):
    """The ledger's balance for one data set, after an event."""

    model_config = ConfigDict(frozen=True)

    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)
    epsilon_limit: float = Field(gt=0)
    """The device owner's limit; the device refuses work that would pass it."""
    dataset_id: str
    unit: str
