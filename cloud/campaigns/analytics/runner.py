"""Runs one analysis: a campaign's machine for one round, which ends with an answer instead of a model."""

from functools import partial

from cloud.campaigns.aggregating import Aggregator
from cloud.campaigns.analytics.asking import AskingQuery, Total, zeros
from cloud.campaigns.analytics.estimates import findings
from cloud.campaigns.asking import Asking, Waiting
from cloud.campaigns.errors import AggregationFailedError, CampaignFailedError
from cloud.campaigns.journal import Step
from cloud.campaigns.models import CheckpointRow, RoundRow
from cloud.campaigns.rounds import finish, give_up
from cloud.campaigns.runner import CampaignRunner
from cloud.campaigns.tries import read_round
from cloud.campaigns.updates import Expected
from shared.analytics.query import SUMS, Query
from shared.api.analytics import Findings
from shared.layout import Layout
from shared.messages.base import ObjectRef
from shared.privacy import PrivacySpec
from shared.strategies import FedAvgSettings
from shared.tensors import Tensors, encode

_UNMEASURED = 0.0
"""Accuracy and loss of what is no model; nothing shows them."""


class AnalysisRunner(CampaignRunner):
    """One analysis, from wherever its journal says it is; arguments are a campaign's."""

    def answer(self) -> Findings:
        """What the fleet says, stored.

        Raises:
            CampaignFailedError: Too few devices answered.
            JobCancelledError: Somebody cancelled; open work was taken back.
        """
        checkpoint = self._begin()
        if checkpoint.round == 0:
            checkpoint = self._run_round(checkpoint)
        total = Total.of(self._load(ObjectRef.model_validate(checkpoint.model)))
        found = findings(
            self._query,
            total.sums,
            noise=total.noise,
            devices=total.devices,
            quantiles=self._campaign.quantiles,
        )
        self._journal.finish_analysis(found)
        return found

    def _try_round(self, number: int, checkpoint: CheckpointRow, *, attempt: int) -> bool:
        """As a campaign's, but once: whoever answered has paid, and would pay again. Raises CampaignFailedError."""
        if attempt > 1:
            raise CampaignFailedError(
                _why(self._journal.tries()[-1]),
                hint="`fleetlearn analytics show` says what each device did; asking again costs the budget again.",
            )
        return super()._try_round(number, checkpoint, attempt=attempt)

    @property
    def _query(self) -> Query:
        return Query.model_validate(self._campaign.query)

    def _begin(self) -> CheckpointRow:
        if (found := self._journal.newest_checkpoint()) is None:
            spec = PrivacySpec.model_validate(self._campaign.privacy) if self._campaign.privacy else None
            step = self._step(0, zeros(self._query))
            self._journal.begin(step, privacy=spec, population=self._cohort.population())
            found = self._journal.newest_checkpoint()
        assert found is not None
        return found

    def _asking(self, checkpoint: CheckpointRow) -> AskingQuery:
        model = zeros(self._query)
        settings, folder = FedAvgSettings(), self._context.work_dir / "updates"
        return AskingQuery(
            self._context,
            self._journal,
            self._campaign,
            self._task,
            settings=settings,
            aggregator=Aggregator(settings, Layout.of(model), population=1, folder=folder),
            model=model,
            memory={},
            expected=Expected((SUMS,)),
        )

    def _aggregate(self, row: RoundRow, asking: Asking) -> bool:
        assert isinstance(asking, AskingQuery)
        closed = read_round(row)
        try:
            total = asking.total(row, closed, waiting=Waiting(self._ring, partial(self._wait_a_moment, row)))
        except AggregationFailedError as error:
            self._journal.note(row, give_up(closed), news={}, reason=error.message)
            return False
        self._journal.finish_round(row, finish(closed), self._step(row.round, total.tensors()), verdicts={})
        return True

    def _step(self, number: int, tensors: Tensors) -> Step:
        ref = self._context.blobs.put(encode(tensors))
        return Step(number, ref, None, accuracy=_UNMEASURED, loss=_UNMEASURED)


def _why(row: RoundRow) -> str:
    """Why the one try was no answer, with what the first device said that gave none."""
    said = [f"{outcome['device_id']}: {outcome['reason']}" for outcome in row.outcomes if outcome["reason"]]
    return f"{row.reason}; {said[0]}" if said else row.reason
