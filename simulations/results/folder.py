"""Where things lie in a results folder, and the rule that nothing in it is overwritten unasked.

experiment.toml         as it was run, every default filled in
metrics.parquet         one row a round and seed
model.safetensors       the last model; with several seeds, model-seed-7.safetensors
environment.json        versions and machine
report.html             for people, with the plots inside
plots/                  the same plots as files
seeds/7/                a seed's checkpoint while it runs, and what its clients keep
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from shared.files import write_atomically
from simulations.experiments.errors import ResultsFolderError
from simulations.experiments.experiment import Experiment
from simulations.experiments.file import read_experiment
from simulations.experiments.text import toml_of

_EXPERIMENT, _CHECKPOINT = "experiment.toml", "checkpoint.safetensors"


@dataclass(frozen=True)
class ResultsFolder:
    """One run's folder."""

    path: Path

    @classmethod
    def create(cls, path: Path, experiment: Experiment, *, overwrite: bool = False) -> "ResultsFolder":
        """A new folder for this experiment.

        Raises:
            ResultsFolderError: There already is something, and nobody asked to overwrite it.
        """
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise ResultsFolderError(f"Expected a folder for results at {path}, got a file")
        if path.is_dir() and any(path.iterdir()):
            _make_room(folder, overwrite=overwrite)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(folder.experiment_file, toml_of(experiment).encode())
        except OSError as error:
            raise ResultsFolderError(f"Expected a folder that can be written at {path}, got {error}") from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "ResultsFolder":
        """A folder that a run made. Raises ResultsFolderError where none did."""
        folder = cls(path)
        if not folder.experiment_file.is_file():
            raise ResultsFolderError(f"Expected a results folder at {path}, got no {_EXPERIMENT} in it")
        return folder

    @property
    def experiment_file(self) -> Path:
        return self.path / _EXPERIMENT

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.parquet"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    def experiment(self) -> Experiment:
        """The experiment that was run."""
        return read_experiment(self.experiment_file)

    def seed_folder(self, seed: int) -> Path:
        return self.path / "seeds" / str(seed)

    def checkpoint_file(self, seed: int) -> Path:
        return self.seed_folder(seed) / _CHECKPOINT

    def model_file(self, seed: int, *, is_only: bool) -> Path:
        return self.path / ("model.safetensors" if is_only else f"model-seed-{seed}.safetensors")


def _make_room(folder: ResultsFolder, *, overwrite: bool) -> None:
    """Removes the results of an earlier run, and nothing else."""
    is_ours = folder.experiment_file.is_file()
    if not (overwrite and is_ours):
        state = "a run's results" if is_ours else "files that no run made"
        raise ResultsFolderError(
            f"Expected a new folder at {folder.path}, got {state}",
            hint=f"Continue it with `fleetlearn simulate resume {folder.path}`, name another with --out, "
            "or replace it with --overwrite."
            if is_ours
            else "Name another with --out.",
        )
    shutil.rmtree(folder.path)
