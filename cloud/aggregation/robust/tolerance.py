"""How many updates a promise takes."""

from cloud.aggregation.errors import TooFewUpdatesError
from cloud.aggregation.rule import Rows


def expect_updates(rows: Rows, at_least: int, promise: str) -> None:
    """Raises TooFewUpdatesError."""
    if rows.clients < at_least:
        raise TooFewUpdatesError(
            f"Expected at least {at_least} updates for {promise}, got {rows.clients}",
            hint="Ask more devices in each round, or tolerate fewer liars.",
        )
