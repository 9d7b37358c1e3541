"""Whether a device's privacy ledger is still the one that it told of before: the coordinator remembers its head.

A device can show that its ledger is whole, and not that it is the newest: files that are all put back look as they did
(`edge_agent.training.ledger_chain`). The coordinator has seen the head since, and its own memory is elsewhere. Pure.

What it cannot see: a ledger that was put back to what the newest heartbeat told of, or that has outgrown, between two
reports, both that and the few entries that a report shows of its past.
"""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from shared.messages.events import LedgerHead


class Witnessed(BaseModel):
    """The highest head that a device told of."""

    model_config = ConfigDict(frozen=True)

    entries: int
    digest: str


@dataclass(frozen=True)
class Judgement:
    """What is remembered from now on, and what is wrong."""

    witnessed: Witnessed
    problem: str | None = None
    """One sentence; empty where the report shows that nothing is, None where it shows nothing of it."""


def judge(told: LedgerHead, known: Witnessed | None) -> Judgement:
    """What the device's newest heartbeat makes of the highest head before; None the first time."""
    new = Witnessed(entries=told.entries, digest=told.digest)
    if known is None:
        return Judgement(new)
    if told.entries < known.entries:
        problem = f"Expected a ledger of at least {known.entries} entries, as it had, got one of {told.entries}"
        return Judgement(known, problem)
    newest = new if told.entries > known.entries else known
    if fork := fork_of(told, known):
        return Judgement(known, fork)
    return Judgement(newest, None if _digest_at(told, known.entries) is None else "")


def fork_of(told: LedgerHead, known: Witnessed | None) -> str:
    """How a report shows another ledger than the known one, whenever it was made; empty where it does not."""
    there = None if known is None else _digest_at(told, known.entries)
    if known is None or there is None or there == known.digest:
        return ""
    return f"Expected a ledger that goes on from entry {known.entries}, got another entry there"


def _digest_at(told: LedgerHead, entry: int) -> str | None:
    """The digest of this entry, where the report shows it."""
    shown = (told.digest, *told.before)
    place = told.entries - entry
    return shown[place] if 0 <= place < len(shown) else None
