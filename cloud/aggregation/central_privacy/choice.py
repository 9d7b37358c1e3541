"""The server's half of a strategy, with user-level privacy."""

from dataclasses import replace

from cloud.aggregation.central_privacy.exclusions import check_private
from cloud.aggregation.central_privacy.noise import Noise
from cloud.aggregation.central_privacy.private_mean import PrivateMean
from cloud.aggregation.choice import rule_of
from cloud.aggregation.rule import Rule
from cloud.aggregation.server_optimizers import Optimized
from shared.privacy import UserPrivacySpec
from shared.strategies import StrategySettings


def private_rule_of(settings: StrategySettings, spec: UserPrivacySpec, noise: Noise) -> Rule:
    """The strategy's streaming rule with user-level privacy.

    Raises:
        PrivacyExcludesError: The strategy is not a mean.
    """
    check_private(settings)
    mean, rule = PrivateMean(spec, noise), rule_of(settings, population=1)
    return replace(rule, rule=mean) if isinstance(rule, Optimized) else mean
