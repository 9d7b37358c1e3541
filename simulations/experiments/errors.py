"""What is wrong with an experiment: every finding at once, each with its key, its line if there is a file, its fix."""

from collections.abc import Iterable
from dataclasses import dataclass

from shared.errors import FleetlearnError

Key = tuple[str, ...]
"""Where in an experiment: `("strategy", "name")`."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    key: Key
    message: str
    """What was expected, and what came."""
    hint: str = ""
    """What to change."""

    def __str__(self) -> str:
        where = f"{'.'.join(self.key)}: " if self.key else ""
        return f"{where}{self.message}{f'. {self.hint}' if self.hint else ''}"


class ExperimentError(FleetlearnError):
    """An experiment that cannot run as it is written."""

    code = "experiment"

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))

    @classmethod
    def at(cls, key: Key, message: str, *, hint: str = "") -> "ExperimentError":
        """With one finding."""
        return cls((Finding(key, message, hint),))


class RunError(FleetlearnError):
    """A run that could not go on; what it had reached is in its folder."""

    code = "run_failed"


class ResultsFolderError(FleetlearnError):
    """A folder that is not the results of this experiment, or already holds results."""

    code = "results_folder"
