"""The options of `analytics run`, by what they are about, and the request that they make."""

from dataclasses import dataclass
from typing import Annotated

import click
import typer

from fleet.commands.common import build
from shared.analytics.query import Protected, Query, Statistic
from shared.api.analytics import AnalysisCreate
from shared.api.campaigns import PrivacyBudget, SecureAggregation, SelectionRules
from shared.strategies import assignments

SECURE_VALUE_MAX = 2.0**16
"""Of one sum of one device: more examples than that on a device, and it refuses to be masked."""


@dataclass(frozen=True)
class Question:
    """What is asked about which feature."""

    feature: Annotated[str, typer.Option("--feature", help="Its name, of the task's schema.")]
    low: Annotated[float, typer.Option("--low", help="What smaller values count as.")]
    high: Annotated[float, typer.Option("--high", help="What larger values count as.")]
    statistics: Annotated[
        list[Statistic] | None,
        typer.Option("--statistic", help="Only this one, for less noise; repeat it. All unless said."),
    ] = None
    quantile: Annotated[
        list[float] | None, typer.Option("--quantile", help="Which, between 0 and 1; repeat it. Quartiles unless said.")
    ] = None
    bins: Annotated[int, typer.Option("--bins", help="Of the histogram.", min=2, max=512)] = 32
    protects: Annotated[Protected, typer.Option("--protects", help="What nobody can tell the presence of.")] = (
        Protected.UNIT
    )
    examples_max: Annotated[
        int, typer.Option("--examples-max", help="Examples that one of what is protected counts for.", min=1)
    ] = 1

    def query(self) -> Query:
        """As devices get it. Raises click.UsageError for what cannot be asked."""
        query = build(
            Query,
            feature=self.feature,
            low=self.low,
            high=self.high,
            bins=self.bins,
            protects=self.protects,
            examples_max=self.examples_max,
            **({"statistics": tuple(self.statistics)} if self.statistics else {}),
        )
        if self.quantile and Statistic.QUANTILES not in query.statistics:
            raise click.UsageError("--quantile: ask for `--statistic quantiles` too, or for no statistic by name.")
        return query


@dataclass(frozen=True)
class Privacy:
    """What the answer may cost, and who sees what it is made of."""

    epsilon: Annotated[float | None, typer.Option("--epsilon", help="What the answer may cost; none: no noise.")] = None
    delta: Annotated[float, typer.Option("--delta", help="At which delta.")] = 1e-5
    secure: Annotated[
        bool, typer.Option("--secure", help="Add up securely: devices share the noise, the coordinator sees the sum.")
    ] = False
    secure_min: Annotated[int, typer.Option("--secure-min", help="Fewest devices in such a sum.", min=3)] = 3

    def budget(self) -> PrivacyBudget | None:
        """None: no noise."""
        return None if self.epsilon is None else build(PrivacyBudget, epsilon=self.epsilon, delta=self.delta)

    def aggregation(self) -> SecureAggregation | None:
        """How the sum is hidden, if it is made of hidden parts."""
        if not self.secure:
            return None
        return build(SecureAggregation, clients_min=self.secure_min, value_max=SECURE_VALUE_MAX)


@dataclass(frozen=True)
class Audience:
    """Which devices are asked, and how long they are waited for."""

    device: Annotated[list[str] | None, typer.Option("--device", help="Only this one; repeat it.")] = None
    select: Annotated[
        list[str] | None,
        typer.Option("--select", help="Whom it asks, such as sites=north; repeat it.", metavar="KEY=VALUE"),
    ] = None
    quorum: Annotated[int, typer.Option("--quorum", help="Fewest devices that make an answer.", min=1)] = 3
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="How long devices are waited for.", min=1)] = 120


def analysis_request(task: str, *, question: Question, privacy: Privacy, audience: Audience) -> AnalysisCreate:
    """The request. Raises click.UsageError for what cannot be asked for."""
    return build(
        AnalysisCreate,
        task=task,
        query=question.query(),
        privacy=privacy.budget(),
        secure=privacy.aggregation(),
        devices=audience.device or [],
        selection=build(SelectionRules, **assignments(audience.select or [])),
        quorum=audience.quorum,
        timeout_s=audience.timeout_s,
        **({"quantiles": question.quantile} if question.quantile else {}),
    )
