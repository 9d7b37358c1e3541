"""From settings to a population: deals the problem's data, or lets clients draw from them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from simulations.experiments.section import short
from simulations.partitions.deal import deal
from simulations.partitions.errors import ImpossiblePartitionError
from simulations.partitions.feature_shift import shift_features
from simulations.partitions.settings import Drawn, FeatureShift, Iid, Partition
from simulations.partitions.shares import check_enough
from simulations.populations.dealt import DealtPopulation
from simulations.populations.drawn import DrawnPopulation
from simulations.populations.port import Populated
from simulations.problem import Problem

CLIENTS_MAX = 10_000_000


class PopulationSettings(BaseModel):
    """Who the clients are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clients: int | None = Field(default=None, ge=1, le=CLIENTS_MAX)
    """How many; nothing: one for each group of the data (`natural` only)."""
    partition: Annotated[Partition, short("kind")] = Field(default_factory=Iid)


def populate(problem: Problem, settings: PopulationSettings, *, seed: int) -> Populated:
    """The problem with its clients.

    Raises:
        ImpossiblePartitionError: The data cannot be dealt so; the hint says what would work.
    """
    labels = problem.train.labels.numpy()
    partition = settings.partition
    if isinstance(partition, Drawn):
        if settings.clients is None:
            raise ImpossiblePartitionError("Expected a number of clients for the partition 'drawn', got none")
        check_enough(len(labels), 1)
        return Populated(problem, DrawnPopulation(partition, labels, clients=settings.clients, seed=seed))
    groups = None if problem.groups is None else problem.groups.numpy()
    dealt = partition.of if isinstance(partition, FeatureShift) else partition
    shares = deal(dealt, labels, clients=settings.clients, seed=seed, groups=groups)
    if isinstance(partition, FeatureShift):
        problem = shift_features(problem, shares, partition, seed=seed)
    return Populated(problem, DealtPopulation(shares))
