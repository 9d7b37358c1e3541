"""How much noise each device adds to its sums: both sides must agree, and the device decides."""

import math

from shared.analytics.errors import UnanswerableQueryError
from shared.analytics.query import Query
from shared.messages.work import SecureWork
from shared.privacy import PrivacySpec
from shared.secagg.fixed_point import FixedPoint

_STEPS_MIN = 4.0
"""Of the fixed-point format, in one standard deviation of a device's noise: rounding that fine keeps its shape."""


def noise_on_each(query: Query, privacy: PrivacySpec | None, secure: SecureWork | None) -> float:
    """Standard deviation of the noise that this device adds to each of its sums; 0 without privacy.

    Guarantees:
        By itself the answer hides what the query protects, as `privacy.noise_multiplier` says. In a secure sum only the
        sum does: each device adds a share, and the shares of the fewest honest devices that a sum can have make all of
        the noise (the secure terms' `clients_min`, less those of `clients_max` who may be corrupt). Rounding to the
        secure sum's format is finer than the share by `_STEPS_MIN`, and changes that by less than 10**-100.

    Raises:
        UnanswerableQueryError: The secure sum's format is too coarse for the noise.
    """
    if privacy is None:
        return 0.0
    deviation = privacy.noise_multiplier * query.sensitivity
    if secure is None:
        return deviation
    corrupt = math.floor(secure.terms.corrupt_share * secure.clients_max)
    share = deviation / math.sqrt(max(1, secure.terms.clients_min - corrupt))
    if (step := FixedPoint(secure.clients_max, secure.value_max).step) * _STEPS_MIN > share:
        raise UnanswerableQueryError(
            f"Expected a secure sum in steps of at most {share / _STEPS_MIN:g}, which its noise survives, got {step:g}",
            hint="Ask with a smaller value_max, or fewer devices at a time.",
        )
    return share
