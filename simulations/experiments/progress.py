"""What a run tells whoever watches it, as it happens."""

from typing import Protocol

from simulations.rounds.record import RoundRecord


class Watcher(Protocol):
    """Watches a run; it may ask for the end."""

    def started(self, seed: int, *, rounds_done: int, notes: tuple[str, ...]) -> None:
        """A seed's rounds begin, or go on from a checkpoint."""
        ...

    def finished_round(self, seed: int, record: RoundRecord) -> None: ...

    def wants_to_stop(self) -> bool:
        """Asked after each round; where true, a checkpoint is written and the run ends."""
        ...


class Nobody:
    """Watches nothing."""

    def started(self, seed: int, *, rounds_done: int, notes: tuple[str, ...]) -> None: ...

    def finished_round(self, seed: int, record: RoundRecord) -> None: ...

    def wants_to_stop(self) -> bool:
        return False
