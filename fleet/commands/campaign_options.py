"""The options of `campaigns start`, by what they are about, and the request that they make."""

from dataclasses import dataclass
from typing import Annotated

import typer

from fleet.commands.common import build
from shared.api.campaigns import CampaignCreate, PrivacyBudget, SecureAggregation, SelectionRules, UserPrivacy
from shared.strategies import assignments


@dataclass(frozen=True)
class Learning:
    """What happens to a model in how many rounds."""

    rounds: Annotated[int, typer.Option("--rounds", help="How many rounds.", min=1)] = 8
    strategy: Annotated[str, typer.Option("--strategy", help="How updates become a model.")] = "fedavg"
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the strategy, or of the Flower app; repeat it.", metavar="KEY=VALUE"),
    ] = None
    compression: Annotated[
        str, typer.Option("--compression", help="How updates are sent, such as int8 or top-k=0.01+int8; none: in full.")
    ] = ""
    seed: Annotated[int, typer.Option("--seed", help="For sampling and initial weights.")] = 0


@dataclass(frozen=True)
class Privacy:
    """What is hidden, from whom, and what it may cost."""

    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="What all rounds may cost one unit; none: no noise.")
    ] = None
    delta: Annotated[float, typer.Option("--delta", help="At which delta.")] = 1e-5
    user: Annotated[
        list[str] | None,
        typer.Option(
            "--user",
            help="Hide each device with all its data: epsilon=4 or noise_multiplier=1, and clip_norm=0.5; repeat it.",
            metavar="KEY=VALUE",
        ),
    ] = None
    secure: Annotated[
        bool, typer.Option("--secure", help="Aggregate securely: the coordinator sees sums of updates alone.")
    ] = False
    secure_min: Annotated[int, typer.Option("--secure-min", help="Fewest updates in such a sum.", min=3)] = 3

    def budget(self) -> PrivacyBudget | None:
        """Of each unit of data; None: no noise."""
        return None if self.epsilon is None else build(PrivacyBudget, epsilon=self.epsilon, delta=self.delta)

    def of_devices(self) -> UserPrivacy | None:
        """Of each device as a whole, if it is hidden."""
        return build(UserPrivacy, **assignments(self.user)) if self.user else None

    def aggregation(self) -> SecureAggregation | None:
        """How sums are hidden, if they are."""
        return build(SecureAggregation, clients_min=self.secure_min) if self.secure else None


@dataclass(frozen=True)
class Audience:
    """Which devices are asked, and how long they are waited for."""

    device: Annotated[list[str] | None, typer.Option("--device", help="Only this one; repeat it.")] = None
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select", help="Whom rounds ask, such as battery_min=0.5 or tags.line=3; repeat it.", metavar="KEY=VALUE"
        ),
    ] = None
    quorum: Annotated[int, typer.Option("--quorum", help="Fewest updates that make a round.", min=1)] = 2
    round_timeout_s: Annotated[float, typer.Option("--round-timeout-s", help="How long a round waits.")] = 120

    def rules(self) -> SelectionRules:
        """By which rounds choose."""
        return build(SelectionRules, **assignments(self.select or []))


@dataclass(frozen=True)
class Waiting:
    """Whether the command ends with the campaign."""

    wait: Annotated[bool, typer.Option("--wait", help="Show the rounds, and end with the campaign.")] = False
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="With --wait: how long.", min=1)] = 24 * 3600


def campaign_request(
    task: str,
    model_version_id: str,
    *,
    learning: Learning,
    privacy: Privacy,
    audience: Audience,
    start_at: float | None,
) -> CampaignCreate:
    """The request. Raises click.UsageError for what cannot be asked for."""
    return build(
        CampaignCreate,
        task=task,
        model_version_id=model_version_id,
        rounds=learning.rounds,
        strategy=learning.strategy,
        strategy_settings=assignments(learning.settings or []),
        compression=learning.compression,
        seed=learning.seed,
        privacy=privacy.budget(),
        user_privacy=privacy.of_devices(),
        secure=privacy.aggregation(),
        devices=audience.device or [],
        selection=audience.rules(),
        quorum=audience.quorum,
        round_timeout_s=audience.round_timeout_s,
        start_at=start_at,
    )
