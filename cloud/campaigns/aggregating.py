"""A round's updates become the next model, in the memory of one update, whatever the cohort.

Streaming rules fold each update as it is read. Robust rules must see all side by side: updates are then written to flat
files, and read in blocks of columns. Arithmetic is `cloud.aggregation`'s, the same that simulations run.
"""

import math
import shutil
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from cloud.aggregation.central_privacy.choice import private_rule_of
from cloud.aggregation.central_privacy.noise import Noise, SecureNoise
from cloud.aggregation.central_privacy.private_mean import BOUND, add_sum
from cloud.aggregation.choice import robust_rule_of, rule_of, server_optimizer_of
from cloud.aggregation.rows import FileRows
from cloud.aggregation.rule import Rule, Updates
from cloud.campaigns.errors import AggregationFailedError
from cloud.campaigns.updates import LOSS_KEY, STEPS_KEY, WEIGHT_KEY, Update, Verdict
from shared.errors import FleetlearnError
from shared.layout import Layout
from shared.privacy import UserPrivacySpec
from shared.strategies import RobustSettings, StrategySettings
from shared.tensors import Array, Tensors

Named = Iterable[tuple[str, Update]]
"""Updates, each with the name of who sent it."""


@dataclass(frozen=True)
class Aggregated:
    """A round's outcome."""

    tensors: Tensors
    """The trained tensors' new values, in the model's shapes and dtypes."""
    memory: Tensors
    """What the strategy must not forget until the next round; empty for most."""
    verdicts: Mapping[str, Verdict]
    """Of robust rules; empty for others."""


class Aggregator:
    """One strategy over one model's trained tensors.

    Args:
        settings: The strategy.
        layout: Names and shapes of the trained tensors.
        population: Devices that may ever take part.
        folder: For the files of robust rules; it is emptied after each round.
        user: User-level privacy, where it is asked for.
    """

    def __init__(
        self,
        settings: StrategySettings,
        layout: Layout,
        *,
        population: int,
        folder: Path,
        user: UserPrivacySpec | None = None,
    ) -> None:
        self._settings = settings
        self._user = user
        self._layout = layout
        self._folder = folder
        # A robust rule's own server optimizer has the state; a streaming rule carries its optimizer in itself.
        self._optimizer = server_optimizer_of(settings.server) if isinstance(settings, RobustSettings) else None
        self._rule: Rule | None = None
        if user is not None:
            self._rule = private_rule_of(settings, user, SecureNoise())
        elif not isinstance(settings, RobustSettings):
            self._rule = rule_of(settings, population=population)

    def with_noise(self, noise: Noise) -> "Aggregator":
        """The same, with its noise from here."""
        assert self._user is not None
        other = copy(self)
        other._rule = private_rule_of(self._settings, self._user, noise)
        return other

    def clip_norm(self, model: Tensors, memory: Tensors) -> float:
        """The bound of the next round's updates, under user-level privacy."""
        assert self._rule is not None
        return float(self._rule.sent(self._state(self._vector(model), memory))[BOUND])

    def sent(self, model: Tensors, memory: Tensors) -> Tensors:
        """Vectors that devices get beside the model, `(parameters,)` float32 each."""
        if self._rule is None or self._user is not None:
            return {}
        state = self._state(self._vector(model), memory)
        return {name: vector.numpy() for name, vector in self._rule.sent(state).items()}

    def aggregate(self, model: Tensors, memory: Tensors, updates: Named) -> Aggregated:
        """The next model from the updates, each read once, in their order: sums of floats depend on it.

        Args:
            model: As it was sent.
            memory: From the round before; empty in the first.
            updates: Read lazily; none is kept.

        Raises:
            AggregationFailedError: The rule refused the updates, or made numbers that are not finite.
        """
        vector = self._vector(model)
        try:
            if isinstance(self._settings, RobustSettings):
                moved, state, verdicts = self._combined(self._settings, vector, memory, updates)
            else:
                moved, state, verdicts = *self._folded(vector, memory, updates), {}
        except FleetlearnError as error:
            raise AggregationFailedError(error.message, hint=error.hint) from error
        return self._made(model, moved, state, verdicts)

    def aggregate_sum(
        self, model: Tensors, memory: Tensors, total: Tensors, *, within: float, clients: int
    ) -> Aggregated:
        """The next model from a sum in which the noise of user-level privacy is already.

        Args:
            model: As it was sent.
            memory: From the round before; empty in the first.
            total: What so many clients' updates add up to, by tensor.
            within: How many of them were within the bound, around 0, noised.
            clients: Whose noise is in it.

        Raises:
            AggregationFailedError: Too few clients added noise, or numbers are not finite.
        """
        assert self._rule is not None
        vector = self._vector(model)
        state = self._state(vector, memory)
        fold = self._rule.begin(vector, self._rule.sent(state))
        add_sum(fold, torch.from_numpy(self._layout.flatten(total)), within=within, clients=clients)
        try:
            return self._made(model, *self._rule.finish(vector, state, fold))
        except FleetlearnError as error:
            raise AggregationFailedError(error.message, hint=error.hint) from error

    def _made(
        self,
        model: Tensors,
        moved: torch.Tensor,
        state: Mapping[str, torch.Tensor],
        verdicts: Mapping[str, Verdict] = MappingProxyType({}),
    ) -> Aggregated:
        _check_finite({"the model": moved, **state})
        kept: Tensors = {name: value.numpy() for name, value in state.items()}
        return Aggregated(self._tensors(moved, model), kept, verdicts)

    def _folded(
        self, vector: torch.Tensor, memory: Tensors, updates: Named
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        assert self._rule is not None
        state = self._state(vector, memory)
        fold = self._rule.begin(vector, self._rule.sent(state))
        for _, update in updates:
            self._rule.add(fold, self._updates(update, vector))
        return self._rule.finish(vector, state, fold)

    def _combined(
        self,
        settings: RobustSettings,
        vector: torch.Tensor,
        memory: Tensors,
        updates: Named,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, Verdict]]:
        assert self._optimizer is not None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        try:
            devices, paths, weights = self._written(vector, updates)
            rows = FileRows(paths, parameters=self._layout.size)
            combined = robust_rule_of(settings).combine(rows, torch.tensor(weights, dtype=torch.float64))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        moved, state = self._optimizer.step(vector, self._state(vector, memory), combined.delta)
        scores, used = combined.scores.tolist(), combined.used.tolist()
        judged = {device: Verdict(*each) for device, *each in zip(devices, scores, used, strict=True)}
        return moved, state, judged

    def _written(self, vector: torch.Tensor, updates: Named) -> tuple[list[str], list[Path], list[float]]:
        """Each update as a file of what it changed."""
        devices, paths, weights = [], [], []
        for number, (device, update) in enumerate(updates):
            path = self._folder / f"{number:06}.float32"
            self._delta(update, vector).numpy().tofile(path)
            devices.append(device)
            paths.append(path)
            weights.append(update.metrics[WEIGHT_KEY])
        return devices, paths, weights

    def _updates(self, update: Update, vector: torch.Tensor) -> Updates:
        def figure(name: str, otherwise: float) -> torch.Tensor:
            return torch.tensor([update.metrics.get(name, otherwise)], dtype=torch.float64)

        return Updates(
            self._delta(update, vector)[None],
            figure(WEIGHT_KEY, 0.0),
            steps=figure(STEPS_KEY, 1.0),
            losses=figure(LOSS_KEY, math.nan),
            staleness=torch.tensor([update.staleness], dtype=torch.float64),
            extras={name: torch.from_numpy(value)[None] for name, value in update.extras.items()},
        )

    def _delta(self, update: Update, vector: torch.Tensor) -> torch.Tensor:
        # In place: the flat vector is a copy already.
        return torch.from_numpy(self._layout.flatten(update.tensors)).sub_(vector)

    def _vector(self, model: Tensors) -> torch.Tensor:
        return torch.from_numpy(self._layout.flatten(model))

    def _state(self, vector: torch.Tensor, memory: Tensors) -> dict[str, torch.Tensor]:
        if memory:
            return {name: torch.from_numpy(np.array(value)) for name, value in memory.items()}
        remembering = self._rule or self._optimizer
        assert remembering is not None
        return remembering.init(vector)

    def _tensors(self, vector: torch.Tensor, model: Tensors) -> Tensors:
        return {name: _cast(value, model[name].dtype) for name, value in self._layout.split(vector.numpy()).items()}


def _check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise AggregationFailedError(f"Expected finite numbers after aggregation, got NaN or infinity in {name}")


def _cast(value: Array, dtype: np.dtype) -> Array:
    return np.asarray(np.rint(value) if np.issubdtype(dtype, np.integer) else value).astype(dtype)
