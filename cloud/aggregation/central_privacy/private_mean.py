"""The mean of clipped updates with Gaussian noise: DP-FedAvg (McMahan et al. 2018, arXiv:1710.06963).

    z <- noise_multiplier,  C <- bound,  m <- expected_clients
    delta <- (sum of clip(delta_k, C) + N(0, (z C)^2)) / m

With adaptive clipping (Andrew, Thakkar, McMahan and Ramaswamy 2021, arXiv:1905.03871, algorithm 1) the bound follows a
quantile of the updates' norms: `C <- C * exp(-learning_rate * (share within C, noised - quantile))`.

It is a streaming rule like others, so a server optimizer may stand behind it: what it does with the noised mean costs
no more privacy.

Guarantees:
    All models of `rounds` rounds together are (epsilon, delta)-differentially private for adding or removing one device
    with all its data, or for its part in every sum being zero (`UserPrivacySpec.adjacency`), with the epsilon that
    `shared.accountant.epsilon_of` gives for `UserPrivacySpec.event`. It holds against whoever sees every model, but no
    single update: the server, which adds the noise, is trusted with those, unless updates are aggregated securely and
    clients add the noise.

    What makes it true: each client's part in the sum is at most C long, whatever it sends; each counts the same,
    because a number of examples is data; and the divisor is how many clients are expected, not how many came, so that
    it tells nothing. A round to which nobody comes ends in noise alone.

    What voids it: a cohort that is not drawn as the spec says (each device by an independent coin of `sampling_rate`
    that the observer does not know; at a rate of 1 nothing is assumed of it); noise that somebody can predict
    (`SeededNoise`), or drawn twice for one round whose first model was seen; fewer clients than `noise_clients_min`
    where they add the noise, which is refused. Numbers are floating-point: an exactly discrete mechanism is what secure
    aggregation brings.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cloud.aggregation.central_privacy.noise import Noise
from cloud.aggregation.errors import TooFewUpdatesError
from cloud.aggregation.rule import NOTHING, Fold, State, Updates, Vector
from shared.privacy import NoiseBy, UserPrivacySpec
from shared.user_privacy import clip_factors, deviations

BOUND = "clip_norm"
"""What is sent to clients, `()`: the bound of this round."""
WITHIN = "within"
"""What clients who add the noise send beside the update, `(clients, 1)`: within the bound or not, around 0, noised."""


@dataclass(frozen=True)
class PrivateMean:
    """The model plus the noised mean of clipped updates; their weights are ignored."""

    spec: UserPrivacySpec
    noise: Noise

    def init(self, model: Vector) -> State:
        zero = torch.zeros((), dtype=torch.float64, device=model.device)
        return {BOUND: zero + self.spec.clip_norm, "rounds": zero.clone()}

    def sent(self, state: State) -> Mapping[str, Vector]:
        return {BOUND: state[BOUND]}

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        zero = torch.zeros((), dtype=torch.float64, device=model.device)
        return {
            "sum": torch.zeros_like(model, dtype=torch.float64),
            "within": zero.clone(),
            "clients": zero.clone(),
            # Folds are added up: the sum of bounds over how many there are is the bound again.
            "bounds": zero + sent[BOUND],
            "folds": zero + 1,
        }

    def add(self, fold: Fold, updates: Updates) -> None:
        fold["clients"] += len(updates.deltas)
        if self.spec.noise_by is NoiseBy.CLIENTS:
            fold["sum"] += updates.deltas.sum(dim=0, dtype=torch.float64)
            fold["within"] += updates.extras[WITHIN].double().sum()
            return
        factors, within = clip_factors(updates.deltas, fold["bounds"] / fold["folds"])
        fold["sum"] += _sum_of_products(factors, updates.deltas)
        # A count around zero: one client changes it by half and not by one.
        fold["within"] += (within.double() - 0.5).sum()

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        of_sum, of_count = self._noise(state, fold)
        expected = self.spec.expected_clients
        after = state | {"rounds": state["rounds"] + 1}
        if adaptive := self.spec.adaptive:
            share_within = (fold["within"] + of_count) / expected + 0.5
            after[BOUND] = state[BOUND] * torch.exp(-adaptive.learning_rate * (share_within - adaptive.quantile))
        return (model.double() + (fold["sum"] + of_sum) / expected).to(model.dtype), after

    def _noise(self, state: State, fold: Fold) -> tuple[torch.Tensor, torch.Tensor]:
        """For the sum, `(parameters,)`, and for the count, `()`; zeros where clients have added it."""
        if self.spec.noise_by is NoiseBy.CLIENTS:
            _expect_noise_of(int(fold["clients"]), self.spec)
            return torch.zeros_like(fold["sum"]), torch.zeros_like(fold["within"])
        count, device = len(fold["sum"]) + 1, fold["sum"].device
        drawn = self.noise.normal(count, round_number=int(state["rounds"]), device=device).double()
        of_sum, of_count = deviations(self.spec, float(state[BOUND]))
        return of_sum * drawn[:-1], of_count * drawn[-1]


def add_sum(fold: Fold, total: torch.Tensor, *, within: float, clients: int) -> None:
    """Adds what clients who add the noise sent, in one sum, in place: secure aggregation shows nothing else."""
    fold["sum"] += total
    fold["within"] += within
    fold["clients"] += clients


def _sum_of_products(factors: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """`sum of factor * delta`, `(parameters,)`, without a copy of the updates."""
    if not factors.all():
        # Zero times NaN is NaN: rows that are left out are not looked at.
        deltas, factors = deltas[factors > 0], factors[factors > 0]
    return factors.to(deltas.dtype) @ deltas


def _expect_noise_of(clients: int, spec: UserPrivacySpec) -> None:
    if clients < spec.noise_clients_min:
        raise TooFewUpdatesError(
            f"Expected the noise of at least {spec.noise_clients_min} clients in the sum, got {clients}",
            hint="Abandon the round: its sum must not be used. Ask more devices in each round.",
        )
