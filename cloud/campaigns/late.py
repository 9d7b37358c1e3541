"""Answers that come after their round: counted, and said why they are not used, or in which later round they are.

Whether late work counts was decided when its round closed: what stayed open counts in a later round (FedBuff), what was
taken back does not. A model that a synchronous round is to improve is not the one that a late update was made for; to
use it all the same, for less, is what FedBuff is (Nguyen et al. 2022, arXiv:2106.06639), and a campaign that wants it
asks for `fedbuff`.
"""

from collections.abc import Mapping, Sequence

from sqlmodel import Session, col, select

from cloud.campaigns.models import CampaignRow, RoundRow
from cloud.campaigns.rounds import Answer, Reply, RoundState, hear
from cloud.campaigns.tries import late_outcome, read_round, write_round
from cloud.work import service as work_service
from cloud.work.service import WorkOutcome
from shared.ids import DeviceId

_OVER = (RoundState.DONE, RoundState.ABANDONED)


def note_late(session: Session, campaign_id: str, *, after_round: int) -> None:
    """Takes down what came meanwhile from devices that were silent when their round ended."""
    if (campaign := session.get(CampaignRow, campaign_id)) is None:
        return
    strategy = campaign.strategy if campaign.query is None else "an analysis"
    rows = tries_of(session, campaign_id, after_round=after_round)
    used = _used(rows)
    for row in rows:
        current = read_round(row)
        if current.state not in _OVER or not current.count(Answer.SILENT):
            continue
        came = [work for work in work_of(session, row).values() if work.result is not None]
        silent = [work for work in came if current.answers.get(work.device_id) is Answer.SILENT]
        news = {work.device_id: late_outcome(work, reason=_why(work, row, used, strategy)) for work in silent}
        for device_id in news:
            current = hear(current, device_id, Reply.FAIL)
        if news:
            write_round(row, current, news=news, work={}, reason=row.reason, now=row.finished_at or 0.0)
            session.add(row)


def note_late_result(session: Session, work_id: str, *, device_id: DeviceId) -> None:
    """The same for one result that was just stored, where it came after its work was taken back."""
    if (found := work_service.expired_with_result(session, work_id, device_id=device_id)) is not None:
        note_late(session, found.campaign_id, after_round=found.round - 1)


def tries_of(session: Session, campaign_id: str, *, after_round: int) -> Sequence[RoundRow]:
    """All tries at rounds after this one, in order."""
    query = select(RoundRow).where(RoundRow.campaign_id == campaign_id, RoundRow.round > after_round)
    return session.exec(query.order_by(col(RoundRow.round), col(RoundRow.attempt))).all()


def work_of(session: Session, row: RoundRow) -> dict[str, WorkOutcome]:
    """The work of this very try, by id, carried work included."""
    own = set(row.work_ids.values())
    found = work_service.results_of(session, campaign_id=row.campaign_id, round=row.round)
    works = {outcome.work_id: outcome for outcome in found if outcome.work_id in own}
    if carried := own - works.keys():
        works |= {outcome.work_id: outcome for outcome in work_service.outcomes_of(session, carried)}
    return works


def _used(rows: Sequence[RoundRow]) -> dict[str, int]:
    """In which round each piece of work counts."""
    return {
        row.work_ids[outcome["device_id"]]: row.round
        for row in rows
        for outcome in row.outcomes
        if outcome["status"] == Answer.DONE
    }


def _why(work: WorkOutcome, row: RoundRow, used: Mapping[str, int], strategy: str) -> str:
    """What became of it, one sentence."""
    if (number := used.get(work.work_id)) is not None:
        return f"Answered after round {row.round}, and counts in round {number}, for less"
    if strategy == "fedbuff":
        return f"Answered after round {row.round}, and later than staleness_max allows: not used"
    return f"Answered after round {row.round} was over: not used, as {strategy} joins updates of one round alone"
