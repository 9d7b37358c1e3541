"""The root of our errors: each has a stable code for programs and a hint for people."""

from typing import ClassVar


class FleetlearnError(Exception):
    """Something the outside did wrong, said in one sentence: what was expected, and what came.

    Args:
        message: One sentence. Sensitive parts, if any, last.
        hint: What the operator can do about it, one sentence, or nothing.
    """

    code: ClassVar[str] = "error"
    """Stable, in snake case; listed in docs/reference/errors.md."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ExtraNotInstalledError(FleetlearnError):
    """A part was asked for whose optional dependencies are not installed."""

    code = "extra_not_installed"

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra '{extra}', which is not installed",
            hint=f"pip install 'fleetlearn[{extra}]'",
        )
