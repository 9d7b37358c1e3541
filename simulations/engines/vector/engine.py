"""The engine: chooses a way by a short trial, trains in worker processes, and adds up their folds.

engine = VectorEngine(problem, local)
fold = engine.train(assignment, collector)
print(engine.notes)
engine.close()
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cloud.aggregation.rule import Fold
from simulations.engines.errors import UnsupportedModelError
from simulations.engines.port import Assignment, Collector, LocalTraining
from simulations.engines.shares import shares
from simulations.engines.vector.choice import Choice, Choices, Remembered, Way, key_of, user_cache_folder
from simulations.engines.vector.layers.kernel import forms
from simulations.engines.vector.layers.network import Network, NotReadableError, read
from simulations.engines.vector.processes.parcel import NotSendableError
from simulations.engines.vector.processes.pool import Pool
from simulations.engines.vector.training import Training
from simulations.engines.vector.trial import Trial
from simulations.problem import Problem


def _all_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _user_cache() -> Path | None:
    return user_cache_folder(os.environ)


@dataclass(frozen=True)
class VectorSettings:
    """How the engine computes."""

    processes: int = field(default_factory=_all_cores)
    """Workers; 1 trains in this process."""
    choice: Choice | None = None
    """Forces a way; None measures."""
    trial_s: float = 1.0
    """CPU time that the trial may take."""
    cache_folder: Path | None = field(default_factory=_user_cache)
    """Where choices are kept from run to run; None measures in every run."""


class VectorEngine:
    """See the module.

    Args:
        problem: What is learned.
        local: How clients train.
        settings: How to compute.

    Raises:
        UnsupportedModelError: No way can compute this, or not the one that the settings force.
    """

    def __init__(self, problem: Problem, local: LocalTraining, settings: VectorSettings | None = None) -> None:
        self._problem, self._local = problem, local
        self._settings = settings or VectorSettings()
        model = problem.model(0).train()
        _refuse_batch_norm_in_private(model, local)
        self._summary = str(model)
        self._has_dropout = any(isinstance(module, torch.nn.modules.dropout._DropoutNd) for module in model.modules())
        self._notes: dict[str, None] = {}
        self._network = self._read(model)
        if local.alternation is not None:
            self._take_turns()
        self._training = Training(problem, local, self._network)
        self._choices: dict[tuple[bool, bool], Choice] = {}
        self._remembered: Remembered | None = None
        self._pool: Pool | None = None

    @property
    def notes(self) -> Sequence[str]:
        return tuple(self._notes)

    @property
    def choices(self) -> Sequence[Choice]:
        """What it computes with: one choice for each kind of assignment seen, usually one."""
        return tuple(self._choices.values())

    def remember_in(self, file: Path) -> None:
        """See `RemembersChoices`."""
        self._remembered = Remembered(file)

    def train(self, assignment: Assignment, collector: Collector) -> Fold:
        with _one_thread():
            choice = self._choice(assignment)
            dealt = [share for share in shares(assignment.steps, self._settings.processes) if len(share)]
            if len(dealt) <= 1 or not hasattr(os, "fork"):
                return self._training.fold(assignment, torch.arange(len(assignment)), collector, choice)
            return _sum(self._folds(assignment, collector, choice, dealt))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _folds(
        self, assignment: Assignment, collector: Collector, choice: Choice, dealt: Sequence[torch.Tensor]
    ) -> list[Fold]:
        """Each worker's fold; tensors are good until the next round."""
        if not self._pool:  # none yet, or one that a failure has ended
            self._pool = Pool(self._work, self._settings.processes)
        try:
            return self._pool.run((assignment, collector, choice), dealt)
        except NotSendableError as error:
            self._note(f"The collector cannot be sent to workers ({error}): workers are forked anew in each round.")
        self.close()
        self._pool = Pool(lambda message: self._work(_with_collector(message, collector)), len(dealt))
        try:
            return [
                {name: value.clone() for name, value in fold.items()}
                for fold in self._pool.run((assignment, None, choice), dealt)
            ]
        finally:
            self.close()

    def _work(self, message: Any) -> Fold:
        """In a worker. `Any`: what `_folds` sends."""
        (assignment, collector, choice), positions = message
        return self._training.fold(assignment, positions, collector, choice)

    def _choice(self, assignment: Assignment) -> Choice:
        kind = (assignment.start.dim() == 1, assignment.linear is not None)
        if kind not in self._choices:
            self._choices[kind] = self._remembered_or_chosen(kind, assignment, self._ways(*kind))
        return self._choices[kind]

    def _remembered_or_chosen(self, kind: tuple[bool, bool], assignment: Assignment, ways: Sequence[Choice]) -> Choice:
        if self._remembered is None:
            return self._chosen(assignment, ways)
        known = self._remembered.read(kind)
        if known is not None and any(_is_same_way(known, way) for way in ways):
            self._note(f"Computes {known}: as the run began.")
            return known
        choice = self._chosen(assignment, ways)
        self._remembered.write(kind, choice)
        return choice

    def _chosen(self, assignment: Assignment, ways: Sequence[Choice]) -> Choice:
        forced = self._settings.choice
        if forced is not None:
            return self._forced(forced, ways)
        share = -(-len(assignment) // self._settings.processes)
        key = key_of(self._summary, self._problem.name, self._local, tuple(assignment.batches.shape[1:]), share, ways)
        kept = Choices(self._settings.cache_folder)
        known = kept.read(key)
        if known is not None and any(_is_same_way(known, way) for way in ways):
            self._note(f"Computes {known}: the fastest when it was measured before, on this machine.")
            return known
        choice = self._tried(assignment, ways, share)
        kept.write(key, choice)
        return choice

    def _tried(self, assignment: Assignment, ways: Sequence[Choice], share: int) -> Choice:
        trial = Trial(
            self._training,
            assignment,
            share=share,
            budget_s=self._settings.trial_s,
            has_draws=self._has_dropout,
        )
        verdict = trial.run(ways)
        for refusal in verdict.refused:
            self._note(f"Did not use {refusal}.")
        best = verdict.best
        if best is None:
            raise UnsupportedModelError(
                f"Expected a way to compute {self._problem.name}, got none: {'; '.join(verdict.refused)}",
                hint="the engine 'reference' computes any model, slowly",
            )
        others = sorted(each.client_s for each in verdict.measured if not _is_same_way(each.choice, best.choice))
        than = f", against {1e3 * others[0]:.3g} ms the next best way" if others else ""
        self._note(f"Computes {best.choice}: {1e3 * best.client_s:.3g} ms of one core a client in a trial{than}.")
        return best.choice

    def _forced(self, forced: Choice, ways: Sequence[Choice]) -> Choice:
        if not any(_is_same_way(forced, way) for way in ways):
            raise UnsupportedModelError(
                f"Expected one of {sorted({str(way.way) for way in ways})}, got {forced}: it cannot compute this. "
                + " ".join(self.notes),
                hint="leave the choice to the engine",
            )
        self._note(f"Computes {forced}, as the settings say.")
        return forced

    def _ways(self, is_common_start: bool, has_linear: bool) -> list[Choice]:
        if self._local.alternation is not None:
            return [Choice(Way.IN_PLACE, 1)]
        general = [Choice(Way.STACKED, 1), Choice(Way.IN_PLACE, 1)]
        if self._network is None:
            return general
        possible = forms(self._network, self._local, is_common_start=is_common_start, has_linear=has_linear)
        layers = [Choice(Way.LAYERS, 1, form) for form in possible]
        return layers if self._settings.choice is None else layers + general

    def _take_turns(self) -> None:
        """Clients of one block are at different turns of theirs. Raises UnsupportedModelError."""
        forced = self._settings.choice
        if forced is not None and forced.way is not Way.IN_PLACE:
            raise UnsupportedModelError(
                f"Expected the way {Way.IN_PLACE.value} where head and body take turns, got {forced.way.value}"
            )
        self._note("Head and body take turns: clients are trained one after another, in place.")

    def _read(self, model: torch.nn.Module) -> Network | None:
        try:
            return read(model, tuple(self._problem.train.inputs.shape[1:]))
        except NotReadableError as error:
            self._note(f"The model has no hand-written form: {error}.")
            return None

    def _note(self, sentence: str) -> None:
        self._notes[sentence] = None


def _with_collector(message: Any, collector: Collector) -> Any:
    (assignment, _, choice), positions = message
    return (assignment, collector, choice), positions


def _sum(folds: Sequence[Fold]) -> Fold:
    """Folds of disjoint clients, added up in the order of workers: the same numbers in every run."""
    total = {name: value.clone() for name, value in folds[0].items()}
    for fold in folds[1:]:
        for name, value in fold.items():
            total[name] += value
    return total


def _is_same_way(one: Choice, other: Choice) -> bool:
    return (one.way, one.form) == (other.way, other.form)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A second OpenMP thread on a small model is a loss; and what is forked here must not need one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _refuse_batch_norm_in_private(model: torch.nn.Module, local: LocalTraining) -> None:
    mixing = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.training
    ]
    if mixing and local.privacy is not None:
        raise UnsupportedModelError(
            f"Expected a model that does not mix examples, got BatchNorm in {', '.join(mixing)}",
            hint="use GroupNorm, or freeze the statistics",
        )
