"""User-level privacy of a campaign: planned before it starts, spent after each round, and where its secrets come from.

Two ways to be honest about who is in a round. With the draw `poisson` every device is in it by a coin of its own, which
nobody but the coordinator can know, and a round goes on with whoever was drawn, be it nobody: sampling amplifies, for
fleets that differ by one device. With any other draw it amplifies nothing: each round is charged in full, for fleets in
which one device's part in every sum is zero. Pure.
"""

import hashlib
from collections.abc import Iterable

from cloud.aggregation.central_privacy.exclusions import check_private
from cloud.aggregation.errors import PrivacyExcludesError
from cloud.campaigns.errors import InvalidCampaignError
from shared.accountant import PrivacyPlanError, epsilon_of, least_noise
from shared.api.campaigns import CampaignCreate, Draw, UserPrivacySpent
from shared.privacy import Adjacency, NoiseBy, UserPrivacySpec
from shared.secagg.noise import honest_min
from shared.secagg.secrets import derived
from shared.strategies import StrategySettings


def check_user_privacy(asked: CampaignCreate, settings: StrategySettings) -> None:
    """Raises InvalidCampaignError when user-level privacy does not go with the rest."""
    if asked.user_privacy is None:
        return
    try:
        check_private(settings)
    except PrivacyExcludesError as error:
        raise InvalidCampaignError(error.message, hint=error.hint) from error
    if reason := _why_not(asked):
        raise InvalidCampaignError(f"Expected what user-level privacy goes with: {reason}")


def planned_for_devices(asked: CampaignCreate, *, population: int) -> UserPrivacySpec | None:
    """The mechanism; its `epsilon` is what all rounds cost each device.

    Args:
        asked: With user-level privacy, or there is nothing to plan.
        population: Devices that may take part, now: what sums are divided by must tell nothing later.

    Raises:
        PrivacyPlanError: No noise keeps the budget, or the bound's count alone would cost it.
    """
    wanted, rules = asked.user_privacy, asked.selection
    if wanted is None:
        return None
    is_random = rules.draw is Draw.POISSON
    rate = rules.rate or 1.0
    noise = wanted.noise_multiplier or least_noise(
        epsilon=wanted.epsilon or 0.0, delta=wanted.delta, sampling_rate=rate, steps=asked.rounds
    )
    try:
        spec = UserPrivacySpec(
            epsilon=wanted.epsilon or 1.0,
            delta=wanted.delta,
            noise_multiplier=noise,
            clip_norm=wanted.clip_norm,
            adaptive=wanted.adaptive,
            sampling_rate=rate,
            expected_clients=rate * population if is_random else min(population, rules.cohort or population),
            rounds=asked.rounds,
            adjacency=Adjacency.ADD_OR_REMOVE_ONE if is_random else Adjacency.ZERO_OUT_ONE,
            noise_by=wanted.noise_by,
            noise_clients_min=_noise_clients(asked),
        )
    except ValueError as error:
        raise PrivacyPlanError(f"Expected a plan of user-level privacy that adds up: {error}") from error
    return spec.model_copy(update={"epsilon": _epsilon(spec, asked.rounds)})


def spent_by_devices(spec: UserPrivacySpec | None, *, rounds: int) -> UserPrivacySpent | None:
    """What so many finished rounds cost each device."""
    if spec is None:
        return None
    return UserPrivacySpent(rounds=rounds, epsilon=_epsilon(spec, rounds), delta=spec.delta)


def noise_key(secret: bytes, *, number: int, attempt: int, updates: Iterable[tuple[str, str]]) -> bytes:
    """The key of one sum's noise.

    The same updates in the same try get the same noise, however often the coordinator is killed; other updates get
    noise that is independent of it. As in RFC 6979: two sums under one noise would show their difference.

    Args:
        secret: The campaign's, in this round.
        number: The round's.
        attempt: The try's.
        updates: Device ids with digests of what they sent.
    """
    inputs = hashlib.sha256("".join(f"{device} {digest}\n" for device, digest in updates).encode()).hexdigest()
    return derived(secret, f"noise of round {number}, try {attempt}, of {inputs}")


def draw_seed(secret: bytes, *, number: int, attempt: int) -> str:
    """The seed of a try's draw, which no device can derive: who knows the coins gets no amplification."""
    return derived(secret, f"draw of round {number}, try {attempt}").hex()


def next_secret(secret: bytes) -> bytes:
    """The secret of the round after: from it, those of rounds that are over do not follow."""
    return derived(secret, "the next round")


def _epsilon(spec: UserPrivacySpec, rounds: int) -> float:
    return epsilon_of([spec.event(rounds)], spec.delta) if rounds else 0.0


def _why_not(asked: CampaignCreate) -> str:
    rules, wanted = asked.selection, asked.user_privacy
    assert wanted is not None
    if rules.draw is Draw.UTILITY:
        return "the draw 'utility' looks at losses, which are data; use uniform or poisson"
    if rules.draw is Draw.POISSON and rules.enough is not None:
        return "with the draw 'poisson' a round takes all who were drawn; leave out selection.enough"
    if wanted.noise_by is NoiseBy.SERVER:
        return "under secure aggregation devices must add the noise: noise_by=clients" if asked.secure else ""
    if asked.secure is None or rules.cohort is None:
        return "devices' shares of noise hide what is summed securely, in cohorts of a known size; say both"
    if _noise_clients(asked) < 1:
        least = asked.secure.clients_min
        return (
            f"of {least} devices in a sum, of a cohort of {rules.cohort}, none is surely honest; ask for more in a sum"
        )
    return ""


def _noise_clients(asked: CampaignCreate) -> int:
    """Devices whose shares make all of the noise: those of the smallest sum who do not work for the coordinator."""
    if asked.secure is None or asked.selection.cohort is None:
        return 1
    return honest_min(
        clients_min=asked.secure.clients_min,
        clients_max=asked.selection.cohort,
        corrupt_share=asked.secure.corrupt_share,
    )
