"""Privacy values that travel: what a campaign asks for, and what a device spent.

No accountant lives here. A mechanism event says everything an accountant needs; the device turns events into epsilon
itself, and refuses work that would overspend.

On a device, the unit of privacy is a task's own (`recording` for physio): all examples of one unit are protected
together. In user-level privacy the unit is a device with all its data. The neighbouring relation is add-or-remove one
unit.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(gt=0, le=1)]
DEVICE = "device"
"""Data set and unit of the account of user-level privacy: a device with all that it ever holds."""


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
    """The ledger's balance of one account, a data set's or the whole device's, after an event."""

    model_config = ConfigDict(frozen=True)

    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)
    epsilon_limit: float = Field(gt=0)
    """The device owner's limit; the device refuses work that would pass it."""
    dataset_id: str
    unit: str


class PrivacyLimits(BaseModel):
    """What a device's owner lets be spent, told before anything is."""

    model_config = ConfigDict(frozen=True)

    epsilon_limit: float = Field(gt=0)
    """Of each data set."""
    device_epsilon_limit: float = Field(gt=0)
    """Of the device with all its data."""
    delta: float = Field(gt=0, lt=1)


class NoiseBy(StrEnum):
    """Who adds the noise of user-level privacy."""

    SERVER = "server"
    """The coordinator, which is trusted with the single updates."""
    CLIENTS = "clients"
    """Each client adds a share; together with secure aggregation nobody sees an update without noise."""


class Adjacency(StrEnum):
    """What two neighbouring fleets differ by."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    ZERO_OUT_ONE = "zero_out_one"
    """One device takes part in the same rounds, and its part in every sum is zero (Ponomareva et al. 2023,
    arXiv:2303.00654): what it learned is hidden, and when it took part is not."""


class AdaptiveClipping(BaseModel):
    """A bound that follows a quantile of the updates' norms (Andrew et al. 2021)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantile: float = Field(default=0.5, gt=0, lt=1)
    learning_rate: float = Field(default=0.2, gt=0, le=10)
    count_noise: float = Field(default=0.05, gt=0, le=1)
    """Noise on how many were within the bound, as a share of the expected clients."""


class UserPrivacySpec(BaseModel):
    """User-level central privacy as a campaign or an experiment asks for it, the same for all of its rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float = Field(gt=0)
    """What all rounds together may cost one device, at `delta`."""
    delta: float = Field(gt=0, lt=1)
    noise_multiplier: float = Field(gt=0)
    """Standard deviation of the noise on a sum of clipped updates, in units of the bound; with adaptive clipping, what
    sum and count together are worth."""
    clip_norm: float = Field(gt=0)
    """L2 bound of one client's update; with adaptive clipping, that of the first round."""
    adaptive: AdaptiveClipping | None = None
    sampling_rate: Probability
    """Chance of a device to be in a round: an independent coin each (Poisson sampling); 1 where it is not by coins."""
    expected_clients: float = Field(gt=0)
    """Devices in a round on average; what sums are divided by."""
    rounds: int = Field(gt=0)
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE
    noise_by: NoiseBy = NoiseBy.SERVER
    noise_clients_min: int = Field(default=1, ge=1)
    """Where clients add the noise: as many shares make all of it, and with fewer the round is abandoned."""

    @model_validator(mode="after")
    def _count_leaves_noise(self) -> Self:
        if self.adaptive and 2 * self.adaptive.count_noise * self.expected_clients <= self.noise_multiplier:
            least = self.noise_multiplier / (2 * self.expected_clients)
            raise ValueError(f"Expected a count_noise above {least:g}, since the count alone would cost the budget")
        return self

    def event(self, rounds: int) -> "MechanismEvent":
        """What so many of the rounds cost a device, for the accountant."""
        return MechanismEvent(
            dataset_id=DEVICE,
            unit=DEVICE,
            noise_multiplier=self.noise_multiplier,
            sampling_rate=self.sampling_rate,
            steps=rounds,
            adjacency=self.adjacency,
        )

    @property
    def is_paid_at_once(self) -> bool:
        """Whether a device pays all rounds with the first that it is in.

        Coins make a round cheaper because of the rounds that a device was not drawn for: who pays only for those it was
        in pays in full. Where devices make the noise against the coordinator too, its coins hide nothing.
        """
        return self.noise_by is NoiseBy.SERVER and self.sampling_rate < 1

    def charge(self, *, times: int) -> "MechanismEvent":
        """What a device's ledger charges for its work in so many rounds."""
        if self.is_paid_at_once:
            return self.event(self.rounds)
        in_full = {"sampling_rate": 1.0, "adjacency": Adjacency.ZERO_OUT_ONE}
        return self.model_copy(update=in_full).event(times)
