"""Runs an experiment: each of its seeds, with checkpoints, into one results folder.

result = run(Experiment(data="digits", rounds=20))
result = run(experiment, folder=Path("results/first"))      # the same, and everything on disk
result = resume(Path("results/first"))                      # after a kill, as if it had not happened
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from shared.strategies import FedXgbBaggingSettings
from shared.tensors import Tensors
from simulations.engines.port import RemembersChoices
from simulations.engines.processes import ALONE, Processes
from simulations.experiments.errors import RunError
from simulations.experiments.experiment import Experiment
from simulations.experiments.progress import Nobody, Watcher
from simulations.results.folder import ResultsFolder
from simulations.results.metrics import Metrics
from simulations.results.result import Result
from simulations.results.tracking import track
from simulations.results.write import write_results
from simulations.rounds.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from simulations.rounds.kept import KeptVectors
from simulations.rounds.loop import RoundLoop, kept_defaults
from simulations.rounds.record import Records
from simulations.rounds.setup import Setup, set_up
from simulations.trees.loop import TreeLoop
from simulations.trees.setup import TreeSetup, set_up_trees

AnySetup = Setup | TreeSetup
AnyLoop = RoundLoop | TreeLoop


def run(
    experiment: Experiment,
    *,
    folder: Path | str | None = None,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    processes: Processes = ALONE,
) -> Result:
    """All rounds of all seeds.

    Args:
        experiment: What to run.
        folder: A new results folder; nothing is written without one.
        overwrite: Whether an earlier run's results in the folder may be removed.
        watcher: Told of every round.
        processes: Those that share the work, which all call this; the first one's result alone is in the folder.

    Raises:
        ExperimentError: The experiment cannot run as it is written.
        ResultsFolderError: The folder holds something already.
        RunError: The disk is full, or fails; the last good checkpoint is in the folder.
    """
    experiment = experiment.resolved()
    first, results = _set_up(experiment, experiment.seeds[0], processes), None
    if folder is not None and processes.is_first:
        results = ResultsFolder.create(Path(folder), experiment, overwrite=overwrite)
    return _run(experiment, first, results, watcher or Nobody(), processes)


def resume(folder: Path | str, *, watcher: Watcher | None = None, processes: Processes = ALONE) -> Result:
    """Goes on with the run in this folder; what comes of it is what would have come without a break."""
    results = ResultsFolder.open(Path(folder)) if processes.is_first else None
    experiment = processes.told(None if results is None else results.experiment())
    assert experiment is not None  # the first one's
    first = _set_up(experiment, experiment.seeds[0], processes)
    return _run(experiment, first, results, watcher or Nobody(), processes)


@dataclass(frozen=True)
class _SeedRun:
    records: Records
    model: Tensors
    notes: tuple[str, ...]
    is_complete: bool


def _set_up(experiment: Experiment, seed: int, processes: Processes) -> AnySetup:
    if isinstance(experiment.strategy, FedXgbBaggingSettings):
        # Nothing to share: each process grows all trees, and they are the same.
        return set_up_trees(experiment, seed)
    return set_up(experiment, seed, processes)


def _run(
    experiment: Experiment, first: AnySetup, results: ResultsFolder | None, watcher: Watcher, processes: Processes
) -> Result:
    done: dict[int, _SeedRun] = {}
    with _disk_errors(results):
        for seed in experiment.seeds:
            setup = first if seed == first.seed else _set_up(experiment, seed, processes)
            try:
                done[seed] = _rounds(setup, results, watcher, processes)
            finally:
                setup.close()
            if not done[seed].is_complete:
                break
        metrics = Metrics.of({seed: each.records.columns() for seed, each in done.items()})
        notes = [note for each in done.values() for note in each.notes]
        result = Result(
            experiment=experiment,
            metrics=metrics,
            models={seed: each.model for seed, each in done.items()},
            notes=tuple(dict.fromkeys([*notes, *_left_out(metrics)])),
            folder=None if results is None else results.path,
            interrupted=not all(each.is_complete for each in done.values()),
        )
        if results is not None:
            write_results(results, result, first)
    if experiment.tracking == "mlflow" and processes.is_first:
        track(result)
    return result


def _rounds(setup: AnySetup, results: ResultsFolder | None, watcher: Watcher, processes: Processes) -> _SeedRun:
    experiment, seed = setup.experiment, setup.seed
    own = _last_checkpoint(results, seed)
    checkpoint = processes.told(own)
    folder = None if results is None else results.seed_folder(seed)
    kept = KeptVectors(_sizes_kept(setup), folder=folder, indexes=own.kept if own else None)
    _share_kept(kept, processes)
    if folder is not None and isinstance(setup, Setup):
        _remember_choices(setup, folder)
    try:
        loop = _loop(setup, kept, checkpoint)
        records = checkpoint.records if checkpoint else Records()
        if not len(records):
            records.add(loop.measure_start())
        save = _saver(loop, records, kept, None if results is None else results.checkpoint_file(seed))
        watcher.started(seed, rounds_done=loop.state.round, notes=setup.notes)
        due = _Due(experiment)
        while loop.state.round < experiment.rounds and not processes.told(watcher.wants_to_stop()):
            records.add(loop.run_round())
            watcher.finished_round(seed, records.last)
            if due.after(loop.state.round):
                save()
        save()
    finally:
        kept.close()
    return _SeedRun(records, loop.tensors, setup.notes, loop.state.round >= experiment.rounds)


def _left_out(metrics: Metrics) -> list[str]:
    """What else looks like a model that does not learn."""
    rejected, clients = (int(metrics.columns[name].sum()) for name in ("rejected", "clients"))
    if not rejected:
        return []
    return [
        f"Left out {rejected:,} of {clients:,} updates, which were NaN or infinite: where clients are honest, their "
        "training diverges, and a smaller learning rate helps."
    ]


def _sizes_kept(setup: AnySetup) -> dict[str, int]:
    """Numbers in each vector that a client keeps."""
    if isinstance(setup, TreeSetup):
        return {}
    return {name: value.numel() for name, value in kept_defaults(setup, setup.start).items()}


def _loop(setup: AnySetup, kept: KeptVectors, checkpoint: Checkpoint | None) -> AnyLoop:
    if isinstance(setup, TreeSetup):
        return TreeLoop(setup, checkpoint.state if checkpoint else None)
    return RoundLoop(setup, kept, checkpoint.state.on(setup.device) if checkpoint else None)


def _share_kept(kept: KeptVectors, processes: Processes) -> None:
    """After a break the first process alone has on its disk what clients keep; the others copy it."""
    if processes.count == 1:
        return
    blocks = kept.blocks() if processes.is_first else iter(())
    while (block := processes.told(next(blocks, None))) is not None:
        if not processes.is_first:
            kept.write(*block)


def _remember_choices(setup: Setup, folder: Path) -> None:
    for number, engine in enumerate(setup.engines):
        if isinstance(engine, RemembersChoices):
            engine.remember_in(folder / f"engine-{number}.json")


class _Due:
    """When the next checkpoint is."""

    def __init__(self, experiment: Experiment) -> None:
        self._settings = experiment.checkpoint
        self._last = monotonic()

    def after(self, number: int) -> bool:
        is_due = number % self._settings.every == 0 or monotonic() - self._last >= self._settings.seconds
        if is_due:
            self._last = monotonic()
        return is_due


def _saver(loop: AnyLoop, records: Records, kept: KeptVectors, path: Path | None) -> Callable[[], None]:
    def save() -> None:
        if path is not None:
            write_checkpoint(path, Checkpoint(loop.state, records, kept.indexes()))
            kept.tidy()

    return save


def _last_checkpoint(results: ResultsFolder | None, seed: int) -> Checkpoint | None:
    if results is None:
        return None
    path = results.checkpoint_file(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    return read_checkpoint(path) if path.is_file() else None


@contextmanager
def _disk_errors(results: ResultsFolder | None) -> Iterator[None]:
    """What the disk does wrong, in our words."""
    try:
        yield
    except OSError as error:
        where = results.path if results else "the folder for temporary files"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        resume_hint = f" `fleetlearn simulate resume {where}` goes on from the last checkpoint." if results else ""
        raise RunError(
            f"Expected space on the disk of {where}, got none" if full else f"Expected to write to {where}: {error}",
            hint=("Free some space." if full else "Make the disk work.") + resume_hint,
        ) from error
