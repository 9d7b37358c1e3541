"""A question, about to be asked: the round's devices get it instead of a model, and their answers are added up."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cloud.campaigns.asking import Asking, Waiting
from cloud.campaigns.models import RoundRow
from cloud.campaigns.rounds import Round
from shared.analytics.noise import noise_on_each
from shared.analytics.query import SUMS, Floats, Query
from shared.ids import DeviceId
from shared.messages.work import Work, WorkKind
from shared.privacy import PrivacySpec
from shared.tensors import Tensors


@dataclass(frozen=True)
class Total:
    """The sums over all devices that answered."""

    sums: Floats
    devices: int
    noise: float
    """Standard deviation of what noise added to each sum, all devices' together."""

    def tensors(self) -> Tensors:
        """As they are stored."""
        return {SUMS: self.sums, "devices": np.array([self.devices]), "noise": np.array([self.noise])}

    @classmethod
    def of(cls, tensors: Tensors) -> "Total":
        return cls(np.asarray(tensors[SUMS], np.float64), int(tensors["devices"][0]), float(tensors["noise"][0]))


def zeros(query: Query) -> Tensors:
    """What stands where a model would: the answer of nobody."""
    return {SUMS: np.zeros(query.size, np.float32)}


class AskingQuery(Asking):
    """The round of an analysis. Everything that is said of a model and its updates holds for zeros and their sums."""

    def total(self, row: RoundRow, closed: Round, *, waiting: Waiting) -> Total:
        """Of the accepted answers. Raises AggregationFailedError."""
        if self._campaign.secure:
            sums, devices = self._secure_sum(row, closed, waiting)
        else:
            # In float64 and in the order of device ids: the sum is the same whenever it is computed.
            answers = [np.asarray(update.tensors[SUMS], np.float64) for _, update in self._updates(row, closed)]
            sums, devices = np.sum(answers, axis=0), len(answers)
        return Total(sums, devices, noise=self._noise_on_each(closed) * math.sqrt(devices))

    def _noise_on_each(self, closed: Round) -> float:
        spec = PrivacySpec.model_validate(self._campaign.privacy) if self._campaign.privacy else None
        return noise_on_each(self._query, spec, self._secure(closed, next(iter(closed.answers))))

    @property
    def _query(self) -> Query:
        return Query.model_validate(self._campaign.query)

    def _works(self, asked: Round, devices: Iterable[DeviceId]) -> dict[DeviceId, Work]:
        works = super()._works(asked, devices)
        changed = {"kind": WorkKind.ANALYZE, "query": self._query, "config": {}}
        return {device: work.model_copy(update=changed) for device, work in works.items()}
