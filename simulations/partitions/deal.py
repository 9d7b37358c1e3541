"""Deals examples to clients, each example to one. Pure; the same seed deals the same.

shares = deal(Dirichlet(alpha=0.3), labels, clients=100, seed=1)
shares.of(7)  # rows of client 7
"""

import numpy as np
from numpy.typing import NDArray

from simulations.partitions.errors import ImpossiblePartitionError
from simulations.partitions.flower import deal_as_flower
from simulations.partitions.settings import Dealt, Dirichlet, DirichletByClass, Flower, Iid, Natural, Quantity, Shards
from simulations.partitions.shares import Rows, Shares, check_enough, even_sizes, shares_by_owner, shares_by_size

_DRAWS_MAX = 100


def deal(settings: Dealt, labels: Rows, *, clients: int | None, seed: int, groups: Rows | None = None) -> Shares:
    """Who holds what.

    Args:
        settings: How to deal.
        labels: `(n,)`, from 0.
        clients: How many; nothing: as many as there are groups (`natural` only).
        seed: Decides everything that is drawn.
        groups: Who or what each example comes from, `(n,)`, where the data know it.

    Raises:
        ImpossiblePartitionError: The hint says what would work.
    """
    generator = np.random.default_rng([seed, 0xDEA1])
    if isinstance(settings, Natural):
        return _natural(groups, clients, generator)
    if isinstance(settings, Flower):
        return deal_as_flower(settings, labels, clients=clients, groups=groups, seed=seed)
    if clients is None:
        raise ImpossiblePartitionError(
            f"Expected a number of clients for the partition {settings.kind!r}, got none",
            hint='Say how many, or deal by who the examples come from: partition = { kind = "natural" }.',
        )
    return _dealt(settings, labels, clients, generator)


def _dealt(
    settings: Iid | Dirichlet | DirichletByClass | Shards | Quantity,
    labels: Rows,
    clients: int,
    generator: np.random.Generator,
) -> Shares:
    check_enough(len(labels), clients, each=_fewest(settings))
    match settings:
        case Iid():
            return shares_by_size(generator.permutation(len(labels)), even_sizes(len(labels), clients))
        case Dirichlet(alpha=alpha):
            return _by_class_counts(labels, _mixed_counts(labels, clients, alpha, generator), generator)
        case DirichletByClass():
            return _by_class_counts(labels, _divided_counts(labels, clients, settings, generator), generator)
        case Shards(shards=shards):
            return _shards(labels, clients, shards, generator)
        case Quantity():
            sizes = _skewed_sizes(len(labels), clients, settings, generator)
            return shares_by_size(generator.permutation(len(labels)), sizes)


def _fewest(settings: Iid | Dirichlet | DirichletByClass | Shards | Quantity) -> int:
    """Examples that every client needs."""
    return settings.shards if isinstance(settings, Shards) else getattr(settings, "examples_min", 1)


def _natural(groups: Rows | None, clients: int | None, generator: np.random.Generator) -> Shares:
    if groups is None:
        raise ImpossiblePartitionError(
            "Expected data that know who their examples come from, for the partition 'natural', got none",
            hint="Name the column that says it (groups = ...), or choose another partition.",
        )
    names, group = np.unique(groups, return_inverse=True)
    clients = len(names) if clients is None else clients
    if not 1 <= clients <= len(names):
        raise ImpossiblePartitionError(
            f"Expected at most {len(names)} clients, one for each group of the data, got {clients}",
            hint="Leave the number of clients out to have one for each group.",
        )
    if clients == len(names):
        return shares_by_owner(group, clients=clients)
    client_of = np.empty(len(names), np.int64)
    client_of[generator.permutation(len(names))] = np.arange(len(names)) % clients
    return shares_by_owner(client_of[group], clients=clients)


def _mixed_counts(labels: Rows, clients: int, alpha: float, generator: np.random.Generator) -> Rows:
    """How many of each class each client holds, `(clients, classes)`: Hsu et al. 2019, section 3.

    A class that is used up is left out and the others' chances grow, so the last clients get what is left.
    """
    left = np.bincount(labels)
    used = left > 0
    mixtures = np.zeros((clients, len(left)))
    # Weights of a vanishing Dirichlet are drawn as zeros; the smallest float keeps every class possible.
    mixtures[:, used] = generator.dirichlet(alpha * left[used] / len(labels), size=clients) + np.finfo(float).tiny
    counts = np.zeros((clients, len(left)), np.int64)
    for client, size in enumerate(even_sizes(len(labels), clients)):
        while (missing := size - counts[client].sum()) > 0:
            chances = mixtures[client] * (left > 0)
            drawn = np.minimum(generator.multinomial(missing, chances / chances.sum()), left)
            counts[client] += drawn
            left = left - drawn
    return counts


def _divided_counts(labels: Rows, clients: int, settings: DirichletByClass, generator: np.random.Generator) -> Rows:
    """The same table for each class divided among the clients."""
    sizes = np.bincount(labels)
    for _ in range(_DRAWS_MAX):
        shares = generator.dirichlet(np.full(clients, settings.alpha), size=len(sizes))
        ends = np.floor(np.cumsum(shares, axis=1) * sizes[:, None] + 1e-9).astype(np.int64)
        ends[:, -1] = sizes
        counts: Rows = np.diff(ends, axis=1, prepend=0).T
        if counts.sum(axis=1).min() >= settings.examples_min:
            return counts
    raise ImpossiblePartitionError(
        f"Expected {settings.examples_min} or more examples with each of {clients} clients, got fewer in {_DRAWS_MAX} "
        f"draws at alpha {settings.alpha:g}",
        hint='Raise alpha, ask for fewer clients, or keep sizes equal: partition = { kind = "dirichlet" }.',
    )


def _by_class_counts(labels: Rows, counts: Rows, generator: np.random.Generator) -> Shares:
    """Deals each class's examples, shuffled, as the table `(clients, classes)` says."""
    clients = len(counts)
    owners = np.empty(len(labels), np.int64)
    for label in range(counts.shape[1]):
        rows = generator.permutation(np.flatnonzero(labels == label))
        owners[rows] = np.repeat(np.arange(clients), counts[:, label])
    return shares_by_owner(owners, clients=clients)


def _shards(labels: Rows, clients: int, shards: int, generator: np.random.Generator) -> Shares:
    shuffled = generator.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    owner_of_shard = generator.permutation(clients * shards) // shards
    owners = np.empty(len(labels), np.int64)
    owners[by_label] = np.repeat(owner_of_shard, even_sizes(len(labels), clients * shards))
    return shares_by_owner(owners, clients=clients)


def _skewed_sizes(examples: int, clients: int, settings: Quantity, generator: np.random.Generator) -> Rows:
    """The smallest number each, and the rest in proportion to drawn weights; largest remainders are rounded up."""
    if settings.sigma is not None:
        weights: NDArray[np.float64] = generator.lognormal(sigma=settings.sigma, size=clients)
    else:
        assert settings.alpha is not None
        weights = generator.dirichlet(np.full(clients, settings.alpha))
    rest = examples - clients * settings.examples_min
    exact = weights / weights.sum() * rest
    extra = np.floor(exact).astype(np.int64)
    rounded_up = np.argsort(extra - exact, kind="stable")[: rest - extra.sum()]
    extra[rounded_up] += 1
    sizes: Rows = settings.examples_min + extra
    return sizes
