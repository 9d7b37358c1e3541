"""What secure aggregation excludes, and why: checked before a campaign starts."""

from collections.abc import Mapping

from cloud.campaigns.errors import InvalidCampaignError
from shared.api.campaigns import CampaignCreate, SecureAggregation
from shared.compression.settings import Compression
from shared.compression.shared_mask import why_not_linear
from shared.secagg.errors import SecureAggregationError
from shared.secagg.graph import topology

EXCLUDED: Mapping[str, str] = {
    **dict.fromkeys(
        ("median", "trimmed_mean", "krum", "multi_krum", "bulyan", "geometric_median", "norm_clipping"),
        "robust rules look at single updates, which nobody sees",
    ),
    "scaffold": "devices send a second vector beside the update",
    "fednova": "updates are weighed by each device's steps",
    "qfedavg": "updates are weighed by each device's loss",
    "feddyn": "the server counts the clients whose updates it adds",
    "fedbuff": "updates of different rounds are not masked together",
    "fedper": "what is shared differs from what is trained",
    "fedrep": "what is shared differs from what is trained",
    "fedbn": "what is shared differs from what is trained",
    "fedxgb_bagging": "trees are appended, and do not add up",
}
"""Strategies, with the reason."""


def check_secure(asked: CampaignCreate) -> None:
    """Raises InvalidCampaignError when secure aggregation does not go with the rest."""
    if asked.secure is None:
        return
    if reason := EXCLUDED.get(asked.strategy):
        raise InvalidCampaignError(
            f"Expected a strategy that secure aggregation goes with, got {asked.strategy}: {reason}",
            hint="Use fedavg, fedprox, fedavgm, fedadagrad, fedadam, fedyogi or ditto.",
        )
    if asked.compression and (why := why_not_linear(Compression.parse(asked.compression))):
        raise InvalidCampaignError(
            f"Expected updates that add up under secure aggregation, got {asked.compression!r}: {why}",
            hint="random-k=0.05 adds up: the same random positions for all devices of a round.",
        )
    check_cohort(asked.secure, quorum=asked.quorum)


def check_cohort(secure: SecureAggregation, *, quorum: int) -> None:
    """Raises InvalidCampaignError when so many devices cannot make a secure sum."""
    if quorum < secure.clients_min:
        raise InvalidCampaignError(
            f"Expected a quorum of at least {secure.clients_min}, the fewest updates in a sum, got {quorum}"
        )
    try:
        topology(quorum, corrupt_share=secure.corrupt_share, dropout_share=secure.dropout_share)
    except SecureAggregationError as error:
        raise InvalidCampaignError(error.message, hint=error.hint) from error
