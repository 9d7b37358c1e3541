"""Accounts of privacy as rows: what is left, what was spent on which campaign, and who could not pay for one more."""

from collections.abc import Sequence

from fleet import formats
from fleet.views.devices import meter, privacy_tone
from fleet.views.table import NOTHING, Cell, Row, Table, Tone
from shared.api.privacy import CampaignSpending, ExpectedRefusal, PrivacyAccount
from shared.privacy import DEVICE

COLUMNS = ("device", "of", "left", "spent", "δ", "its ledger says", "spent on", "note")
_CAMPAIGNS_SHOWN = 3
_REFUSALS_SHOWN = 5
_TOLERANCE = 0.005
"""Epsilon is shown to two digits: less is no difference."""


def account_table(accounts: Sequence[PrivacyAccount]) -> Table:
    """One row for each account, in the order given."""
    return Table.of(COLUMNS, (_account_row(account) for account in accounts))


def spending_table(accounts: Sequence[PrivacyAccount]) -> Table:
    """One row for each campaign or analysis on each account of a device, the most expensive first."""
    return Table.of(
        ("campaign", "of", "ε of it alone", "times"),
        (
            Row(
                f"{account.dataset_id} {each.campaign_id}",
                (
                    Cell(each.campaign_id, Tone.STRONG),
                    Cell(whose(account.dataset_id, account.unit), Tone.MUTED),
                    Cell(f"{each.epsilon:.2f} at δ {account.delta:g}", order=each.epsilon),
                    Cell(str(each.times), order=each.times),
                ),
            )
            for account in accounts
            for each in account.campaigns
        ),
    )


def whose(dataset_id: str, unit: str = "") -> str:
    """What an account is of, in an operator's words."""
    if dataset_id == DEVICE:
        return "all its data"
    return f"{unit or 'data'} of {formats.short(dataset_id, width=12)}" if dataset_id else "data it did not name"


def refusals_text(refusals: Sequence[ExpectedRefusal]) -> str:
    """Which devices would refuse, and when; the first to do so first."""
    soonest = sorted(refusals, key=lambda each: (each.rounds, each.device_id))
    words = [
        f"{each.device_id} after {each.rounds} round(s): ε {each.epsilon:.2f} of {each.epsilon_limit:g}"
        for each in soonest[:_REFUSALS_SHOWN]
    ]
    more = len(soonest) - _REFUSALS_SHOWN
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")


def _account_row(account: PrivacyAccount) -> Row:
    return Row(
        f"{account.device_id} {account.dataset_id}",
        (
            Cell(account.device_id, Tone.STRONG),
            Cell(whose(account.dataset_id, account.unit)),
            _left(account),
            _spent(account),
            Cell(f"{account.delta:g}", Tone.MUTED),
            NOTHING if account.epsilon_ledger is None else Cell(f"ε {account.epsilon_ledger:.2f}"),
            Cell(_spent_on(account.campaigns)),
            _note(account),
        ),
    )


def _left(account: PrivacyAccount) -> Cell:
    if account.epsilon_left is None or not account.epsilon_limit:
        return NOTHING
    share = account.epsilon_left / account.epsilon_limit
    return Cell(f"{meter(share)} ε {account.epsilon_left:.2f}", privacy_tone(share), order=share)


def _spent(account: PrivacyAccount) -> Cell:
    limit = "" if account.epsilon_limit is None else f" of {account.epsilon_limit:g}"
    return Cell(f"ε {account.epsilon:.2f}{limit}", order=account.epsilon)


def _spent_on(campaigns: Sequence[CampaignSpending]) -> str:
    """The most expensive ones; each epsilon is of that campaign alone."""
    words = [f"{each.campaign_id} {each.epsilon:.2f} ({each.times}x)" for each in campaigns[:_CAMPAIGNS_SHOWN]]
    more = len(campaigns) - _CAMPAIGNS_SHOWN
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _note(account: PrivacyAccount) -> Cell:
    if account.ledger_problem:
        return Cell(account.ledger_problem, Tone.BAD)
    if account.epsilon_ledger is None:
        return Cell("its ledger said nothing yet: this is what it was asked for", Tone.WARN)
    if account.epsilon_ledger > account.epsilon_asked + _TOLERANCE:
        return Cell("its ledger paid for more than is known here", Tone.WARN)
    if account.epsilon_asked > account.epsilon_ledger + _TOLERANCE:
        return Cell("some work it was asked for may not be paid yet", Tone.MUTED)
    return Cell("")
