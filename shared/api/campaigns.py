"""Campaigns and their rounds."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from shared.api.base import Shape
from shared.api.privacy import ExpectedRefusal
from shared.lifecycles import JobState
from shared.privacy import AdaptiveClipping, NoiseBy, PrivacySpec, PrivacySpent, UserPrivacySpec


class PrivacyBudget(Shape):
    """What the whole campaign may cost one unit on a device."""

    epsilon: float = Field(gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)


class UserPrivacy(Shape):
    """Hides each device, with all its data, from whoever sees the campaign's models: updates clipped, sums noised."""

    epsilon: float | None = Field(default=None, gt=0)
    """What all rounds may cost a device: the noise follows from it."""
    noise_multiplier: float | None = Field(default=None, gt=0)
    """Or the noise itself, by the bound: what the rounds cost follows from it."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """Should be well below one over the number of devices."""
    clip_norm: float = Field(gt=0)
    """Bound of an update's L2 norm; with adaptive clipping, that of the first round."""
    adaptive: AdaptiveClipping | None = None
    noise_by: NoiseBy = NoiseBy.SERVER

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("expected either an epsilon or a noise_multiplier")
        return self


class Draw(StrEnum):
    """How a round's devices are drawn among those that may be asked."""

    UNIFORM = "uniform"
    """All alike."""
    UTILITY = "utility"
    """Rather those whose updates taught most in the least time, and some that nobody knows yet (Oort)."""
    POISSON = "poisson"
    """Each with the same chance, independently: what accounting with subsampling assumes."""


def _words(value: Any) -> Any:  # whatever was sent; pydantic judges it next
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


Words = Annotated[list[str], BeforeValidator(_words)]
"""A list, or one string with commas: a command line has no lists."""


class SelectionRules(Shape):
    """Whom a campaign's rounds ask, beyond having the task and being online.

    A device that does not report something is not left out for it: a gateway without a battery has no charge. What must
    never be is the device owner's to set, on the device.
    """

    tags: dict[str, str] = Field(default_factory=dict)
    """All of them, with these values."""
    sites: Words = Field(default_factory=list)
    """Any of these values of the tag `site`; empty: all."""
    battery_min: float | None = Field(default=None, ge=0, le=1)
    """Charge, unless it is on external power."""
    charging_only: bool = False
    networks: Words = Field(default_factory=list)
    """Any of `ethernet`, `wifi`, `cellular`; empty: all."""
    temperature_max_c: float | None = None
    memory_free_min_bytes: int | None = Field(default=None, ge=0)
    examples_min: int | None = Field(default=None, ge=1)
    """As its newest update in this campaign said."""
    data_age_max_s: float | None = Field(default=None, gt=0)
    """Since its data last changed."""
    drift_min: float | None = Field(default=None, ge=0)
    """Only where some feature's drift is at least so many times its threshold: retrain where the world has changed."""
    rest_rounds: int = Field(default=0, ge=0)
    """Rounds of this campaign that a device sits out after one it was asked in."""
    failures_max: int | None = Field(default=None, ge=1)
    """Failures and silences in a row, after which this campaign does not ask it again."""
    cohort: int | None = Field(default=None, ge=1)
    """Most devices in a round; None: all that may be asked. Not with `poisson`."""
    enough: int | None = Field(default=None, ge=1)
    """Updates that close a round: ask a few devices more than that, and nobody waits for the slowest."""
    draw: Draw = Draw.UNIFORM
    rate: float | None = Field(default=None, gt=0, le=1)
    """With `poisson`: each device's chance."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.draw is Draw.POISSON) != (self.rate is not None):
            raise ValueError("expected a rate with the draw 'poisson', and with no other")
        if self.draw is Draw.POISSON and self.cohort is not None:
            raise ValueError("expected no cohort with the draw 'poisson': its size is random")
        if self.draw is Draw.UTILITY and self.cohort is None:
            raise ValueError("expected a cohort with the draw 'utility', or there is nothing to choose")
        if self.enough is not None and self.cohort is not None and self.enough > self.cohort:
            raise ValueError("expected a cohort of at least as many devices as are enough")
        return self


class SecureAggregation(Shape):
    """The coordinator sees the sum of a round's updates, and no single one."""

    clients_min: int = Field(default=3, ge=3)
    """A sum of fewer is never unmasked; devices insist on it."""
    corrupt_share: float = Field(default=0.1, ge=0, lt=0.5)
    """Of the devices of a round, who may work for the coordinator."""
    dropout_share: float = Field(default=0.3, ge=0, lt=0.5)
    """Of them, who may go away before the sum is unmasked."""
    value_max: float = Field(default=16.0, gt=0, le=1e6)
    """Of one number of an update; a device whose update has a larger one refuses, and nothing is clipped."""


class CampaignCreate(Shape):
    """Starts federated rounds from a model version."""

    task: str
    model_version_id: str
    rounds: int = Field(default=8, ge=1, le=10_000)
    strategy: str = "fedavg"
    strategy_settings: dict[str, Any] = Field(default_factory=dict)
    """`shared.strategies`, without the name; what is not said has the strategy's default. `Any`: JSON."""
    compression: str = Field(default="", max_length=80)
    """How updates are sent, in words: `int8`, `top-k=0.01+int8` (`shared.compression.settings`); empty: in full."""
    privacy: PrivacyBudget | None = None
    """None trains without noise; a device whose owner wants a ledger kept refuses that."""
    user_privacy: UserPrivacy | None = None
    """None tells whoever sees the models whatever they tell of one device."""
    secure: SecureAggregation | None = None
    """None lets the coordinator see each update."""
    devices: list[str] = Field(default_factory=list)
    """Only these; empty means every device that has the task."""
    selection: SelectionRules = Field(default_factory=SelectionRules)
    quorum: int = Field(default=2, ge=1)
    """Fewest updates that make a round."""
    round_timeout_s: float = Field(default=120, gt=0)
    seed: int = 0
    start_at: float | None = Field(default=None, ge=0)
    """When it starts, in seconds since the epoch; None or the past is now."""


class FlowerRun(Shape):
    """A Flower app that is none of ours, and how it is run."""

    app: str = Field(min_length=1, max_length=200)
    """Publisher and project, `flwrlabs/quickstart`."""
    version: str = Field(max_length=100)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the app's files: coordinator and devices run just these, which were installed there."""
    config: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """The run's configuration; asked with what differs from the app's own, shown in full."""
    files: list[str] = Field(default_factory=list)
    """What the app left behind when it ended, by the name in its folder."""
    folder: str = ""
    """Where that is, on the coordinator's machine."""


class FlowerCampaignCreate(Shape):
    """Starts a Flower app on the fleet. It owns its rounds and its sampling: the rules here say who may be asked."""

    flower: FlowerRun
    devices: list[str] = Field(default_factory=list)
    """Only these; empty means every device that has the app."""
    selection: SelectionRules = Field(default_factory=SelectionRules)
    round_timeout_s: float = Field(default=3600, gt=0)
    """How long a message waits for its device; after that the app gets an error in its place."""
    seed: int = 0
    """Of Python's, NumPy's and PyTorch's generators in the ServerApp."""
    start_at: float | None = Field(default=None, ge=0)
    """When it starts, in seconds since the epoch; None or the past is now."""


class CampaignClone(Shape):
    """Asks for the same again; what is given here is different."""

    model_version_id: str | None = None
    rounds: int | None = Field(default=None, ge=1, le=10_000)
    seed: int | None = None
    start_at: float | None = Field(default=None, ge=0)


class DeviceOutcome(Shape):
    """What one device did in one round, and why not, if not."""

    device_id: str
    status: str
    """`waiting`, `done`, `refused`, `failed`, `late`, `silent`."""
    reason: str = ""
    examples: int = 0
    update_bytes: int = 0
    """As it was sent."""
    update_bytes_raw: int = 0
    """What it would have been in full."""
    compression: str = ""
    """How it was sent; empty: in full, also where something else was asked and the agent does not know it."""
    model_bytes: int | None = None
    """What came down to the device for the model; None where it does not say."""
    duration_s: float = 0
    metrics: dict[str, float] = Field(default_factory=dict)
    privacy: PrivacySpent | None = None
    anomaly_score: float | None = None
    """Of robust strategies: how unlike the others its update was, higher is stranger."""
    is_used: bool | None = None
    """Of robust strategies: whether its update has a part in the new model."""


class Round(Shape):
    """One try at a round; `accuracy` is the aggregated model's on validation data.

    Of a Flower app, one round is what it sent together.
    """

    round: int
    message_type: str = ""
    """What a Flower app asked for: `train`, `evaluate`, `query`."""
    attempt: int = 1
    """An abandoned round is tried again under the same number."""
    state: str
    """`selecting`, `waiting`, `aggregating`, `done`, `abandoned`."""
    reason: str = ""
    """Why it was abandoned, one sentence."""
    started_at: float
    finished_at: float | None = None
    accuracy: float | None = None
    loss: float | None = None
    personal_accuracy: float | None = None
    """Mean over devices of each one's own model on what it holds out, as they say; of strategies with such models."""
    bytes_down: int = 0
    bytes_up: int = 0
    bytes_down_raw: int = 0
    """What would have come down had every device got the model in full."""
    bytes_up_raw: int = 0
    """What the updates would have been in full."""
    devices: list[DeviceOutcome] = Field(default_factory=list)
    excluded: dict[str, str] = Field(default_factory=dict)
    """Devices that were not asked, each with the reason."""
    chosen: dict[str, str] = Field(default_factory=dict)
    """Why devices were asked before others, where there was a choice."""


class DevicePrivacy(Shape):
    """What a campaign may have cost one device's data."""

    device_id: str
    rounds: int
    """Rounds that it may have charged: those whose work it fetched and did not refuse."""
    epsilon: float
    """Of these rounds alone, at `delta`."""
    delta: float
    ledger: PrivacySpent | None = None
    """What the device's own ledger said last, of all campaigns together."""


class UserPrivacySpent(Shape):
    """What the rounds that are done cost each device, asked or not."""

    rounds: int
    epsilon: float
    delta: float


class Campaign(Shape):
    """A federated training job. Lists leave `history` empty."""

    campaign_id: str
    task: str
    state: JobState
    error: str = ""
    strategy: str
    strategy_settings: dict[str, Any] = Field(default_factory=dict)
    compression: str = ""
    rounds: int
    rounds_done: int = 0
    selection: SelectionRules = Field(default_factory=SelectionRules)
    privacy: PrivacySpec | None = None
    """What all rounds may cost each device, planned before it starts."""
    privacy_spent: list[DevicePrivacy] = Field(default_factory=list)
    """The most expensive first. Devices hold different units, so the first is also what the campaign cost overall."""
    user_privacy: UserPrivacySpec | None = None
    """How devices are hidden, planned before it starts; what all rounds cost each device is its `epsilon`."""
    user_privacy_spent: UserPrivacySpent | None = None
    would_refuse: list[ExpectedRefusal] = Field(default_factory=list)
    """Only when it is planned or starts: devices that cannot pay all rounds, as far as is known then."""
    secure: SecureAggregation | None = None
    flower: FlowerRun | None = None
    """The Flower app that it runs, instead of a strategy of ours; `rounds` is its `num-server-rounds`, 0 where it has
    none."""
    start_model_version_id: str
    """Empty where a Flower app makes its own model."""
    start_accuracy: float | None = None
    """The starting model's accuracy on validation data."""
    result_model_version_id: str | None = None
    created_at: float
    start_at: float | None = None
    """When it was to start, if that was said."""
    finished_at: float | None = None
    history: list[Round] = Field(default_factory=list)
