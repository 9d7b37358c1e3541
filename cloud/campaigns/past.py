"""What a campaign's tries so far say of each device, kept up try by try: a long campaign is not read anew each round.

past = Past.of(tries)            # all at once
past.add(row)                    # or one more
now = past.with_rows(unsettled)  # beside it, for tries that may still change
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from cloud.campaigns.models import RoundRow
from cloud.campaigns.rounds import Answer, RoundState
from cloud.campaigns.selection_rules import NEWCOMER, History
from shared.ids import DeviceId


@dataclass(frozen=True)
class Past:
    """By device; its dictionaries grow with `add`."""

    refused: dict[str, str] = field(default_factory=dict)
    """Devices that refused, with their newest reasons."""
    takes: dict[str, int] = field(default_factory=dict)
    """How often each may have charged its ledger: it fetched the work, and did not refuse it before it paid."""
    histories: dict[str, History] = field(default_factory=dict)
    """What each did."""
    counted: dict[DeviceId, str] = field(default_factory=dict)
    """The newest work whose update has a part in the model."""
    _taken: dict[str, str] = field(default_factory=dict)
    """The newest work that was fetched: one that is carried into the next round is charged once."""

    @classmethod
    def of(cls, tries: Iterable[RoundRow]) -> Self:
        """From tries in their order."""
        past = cls()
        for row in tries:
            past.add(row)
        return past

    def with_rows(self, rows: Iterable[RoundRow]) -> "Past":
        """A past of its own, with these tries after all others."""
        past = Past(
            self.refused.copy(), self.takes.copy(), self.histories.copy(), self.counted.copy(), self._taken.copy()
        )
        for row in rows:
            past.add(row)
        return past

    def add(self, row: RoundRow) -> None:
        """One more try, after all others."""
        refusing = {outcome["device_id"] for outcome in row.outcomes if outcome["status"] == Answer.REFUSED}
        unpaid = refusing - {outcome["device_id"] for outcome in row.outcomes if outcome.get("privacy")}
        for device in row.fetched:
            work_id = row.work_ids.get(device, str(row.round_id))
            if device not in unpaid and self._taken.get(device) != work_id:
                self._taken[device] = work_id
                self.takes[device] = self.takes.get(device, 0) + 1
        for outcome in row.outcomes:
            device = outcome["device_id"]
            self.histories[device] = _with_outcome(self.histories.get(device, NEWCOMER), outcome, round=row.round)
            if device in refusing:
                self.refused[device] = outcome["reason"] or "no reason given"
            elif outcome["status"] == Answer.DONE and row.state == RoundState.DONE:
                self.counted[DeviceId(device)] = row.work_ids[device]


def _with_outcome(before: History, outcome: Mapping[str, Any], *, round: int) -> History:  # Any: JSON
    asked = replace(before, last_asked=round)
    match outcome["status"]:
        case Answer.DONE:
            return replace(
                asked,
                times=before.times + 1,
                last_done=round,
                failures=0,
                examples=outcome["examples"],
                loss=outcome["metrics"].get("start-loss", outcome["metrics"].get("train-loss")),
                duration_s=outcome["duration_s"],
            )
        case Answer.FAILED | Answer.SILENT:
            return replace(asked, failures=before.failures + 1)
        case _:
            return asked
