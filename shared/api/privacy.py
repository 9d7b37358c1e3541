"""Privacy over all campaigns, as operators see it."""

from pydantic import Field

from shared.api.base import Shape


class CampaignSpending(Shape):
    """What one campaign or analysis may have cost an account."""

    campaign_id: str
    times: int
    """Pieces of work that the device fetched and did not refuse before it paid."""
    epsilon: float
    """Of this campaign alone, at the account's delta. Those of several do not add up to what they cost together."""


class PrivacyAccount(Shape):
    """One account of a device: a data set's, or that of the device with all its data."""

    device_id: str
    dataset_id: str
    """`device` for all its data; empty where it took work and never told of which data."""
    unit: str
    """What is protected; empty where that is not known."""
    delta: float
    epsilon: float
    """What may be spent, all campaigns composed: the greater of the two below."""
    epsilon_asked: float
    """Of the work that this coordinator knows of, composed."""
    epsilon_ledger: float | None = None
    """What the device's ledger said last."""
    epsilon_limit: float | None = None
    """The owner's; None where the device never told it."""
    epsilon_left: float | None = None
    campaigns: list[CampaignSpending] = Field(default_factory=list)
    """The most expensive first."""
    ledger_problem: str = ""
    """How its ledger is not the one that it told of before: it may have forgotten what it spent."""


class ExpectedRefusal(Shape):
    """A device whose remaining budget is too small for all rounds of a campaign, as far as is known."""

    device_id: str
    dataset_id: str
    """The account that is too small; empty for data that has spent nothing."""
    rounds: int
    """How many it would take part in before it refuses."""
    epsilon: float
    """What the account would have spent with one round more."""
    epsilon_limit: float
    delta: float
