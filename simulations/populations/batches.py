"""Plans the batches of a whole cohort at once, as one tensor; no Python for each client.

A client's batches are a pure function of (seed, round, client): whoever else is in the cohort, and in whatever order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from simulations.keyed import Stream
from simulations.populations.port import Clients, Holdings, Population
from simulations.populations.segments import Ints, starts, within


@dataclass(frozen=True)
class Shuffled:
    """Passes over the client's examples, each in an order of its own, in batches; a pass's last may be smaller.

    Passes are made until `epochs` are done or `steps` are taken, whichever is first.
    """

    batch: int | None
    """Examples in a batch; nothing: all of the client's at once."""
    epochs: int | None = 1
    steps: int | None = None


@dataclass(frozen=True)
class Poisson:
    """In each step each example with a chance of its own: what the accounting of DP-SGD assumes."""

    rate: float
    """Above 0, at most 1."""
    steps: int


@dataclass(frozen=True)
class Batches:
    """As `Assignment` has them."""

    batches: torch.Tensor
    """Rows of `Problem.train`, `(K, steps, batch)` int64, padded with -1."""
    steps: torch.Tensor
    """`(K,)` int64."""
    seeds: torch.Tensor
    """One for each client in this round, `(K,)` int64."""
    examples: torch.Tensor
    """How many each client holds, `(K,)` int64."""


Round = int | Ints
"""A round's number; or one for each client, `(K,)`, where clients start at different times."""


def plan_batches(
    population: Population, clients: Clients, work: Shuffled | Poisson, *, seed: int, round: Round
) -> Batches:
    """What each client of a cohort trains on in a round."""
    holdings = population.holdings(clients)
    rounds = np.broadcast_to(np.asarray(round), clients.shape)
    match work:
        case Shuffled():
            table, steps = _shuffled(holdings, clients, work, Stream.named(seed, "shuffle"), rounds)
        case Poisson():
            table, steps = _poisson(holdings, clients, work, Stream.named(seed, "poisson"), rounds)
    return Batches(
        batches=torch.from_numpy(table),
        steps=torch.from_numpy(steps),
        seeds=torch.from_numpy(Stream.named(seed, "clients").seeds(rounds, clients)),
        examples=torch.from_numpy(holdings.sizes),
    )


def passes(work: Shuffled | Poisson, sizes: Ints) -> NDArray[np.float64]:
    """How many passes of one example each client's work is, `(K,)`; for Poisson sampling, on average."""
    if isinstance(work, Poisson):
        return (work.rate * work.steps * sizes).astype(np.float64)
    batch = np.minimum(work.batch or sizes, sizes)
    by_epochs = np.inf if work.epochs is None else work.epochs * sizes
    by_steps = np.inf if work.steps is None else work.steps * batch
    return np.minimum(by_epochs, by_steps).astype(np.float64)


def _shuffled(holdings: Holdings, clients: Clients, work: Shuffled, stream: Stream, rounds: Ints) -> tuple[Ints, Ints]:
    sizes = holdings.sizes
    batch = int(min(work.batch or sizes.max(), sizes.max()))
    per_pass = -(-sizes // batch)
    steps = per_pass * work.epochs if work.epochs is not None else np.full(len(sizes), work.steps)
    steps = np.minimum(steps, work.steps) if work.steps is not None else steps
    passes = -(-steps // per_pass)
    # One segment for each pass of each client; a segment is shuffled by sorting random keys.
    client = np.repeat(np.arange(len(sizes)), passes)
    segment = np.repeat(np.arange(len(client)), sizes[client])
    place = within(sizes[client])
    holder = client[segment]
    order = _shuffle(segment, stream.bits(rounds[holder], clients[holder], within(passes)[segment], place))
    row = holdings.rows[starts(sizes)[holder] + place[order]]
    slot = within(passes)[segment] * per_pass[holder] * batch + place
    table = np.full((len(sizes), int(steps.max()), batch), -1, np.int64)
    inside = slot < steps[holder] * batch
    table.reshape(len(sizes), -1)[holder[inside], slot[inside]] = row[inside]
    return table, steps


def _shuffle(segment: Ints, keys: NDArray[np.uint64]) -> Ints:
    """Sorts by segment, then by key: the segment's number takes the place of the keys' high bits."""
    bits = max(1, int(segment[-1]).bit_length())
    high = segment.astype(np.uint64) << np.uint64(64 - bits)
    return np.argsort(high | (keys >> np.uint64(bits)))


def _poisson(holdings: Holdings, clients: Clients, work: Poisson, stream: Stream, rounds: Ints) -> tuple[Ints, Ints]:
    """Draws the gaps between chosen examples, not a coin for each: the cost is that of what is chosen.

    A client's examples of all its steps lie in one line; the gaps between successes of independent coins are geometric.
    """
    sizes = holdings.sizes
    holder, place = _hits(clients, sizes * work.steps, work.rate, stream, rounds)
    step = place // sizes[holder]
    group = holder * work.steps + step
    counts = np.bincount(group, minlength=len(sizes) * work.steps)
    slot = within(counts)
    table = np.full((len(counts), max(1, int(counts.max()))), -1, np.int64)
    table[group, slot] = holdings.rows[starts(sizes)[holder] + place % sizes[holder]]
    return table.reshape(len(sizes), work.steps, -1), np.full(len(sizes), work.steps)


def _hits(clients: Clients, coins: Ints, rate: float, stream: Stream, rounds: Ints) -> tuple[Ints, Ints]:
    """Which coins fall: the position of the client, and the coin's place in its line, both in order."""
    mean = rate * coins
    draws = np.ceil(mean + 8 * np.sqrt(mean) + 16).astype(np.int64)
    while True:
        holder = np.repeat(np.arange(len(clients)), draws)
        chance = stream.uniform(rounds[holder], clients[holder], within(draws))
        with np.errstate(divide="ignore"):  # a rate of 1 leaves no gaps
            gaps = np.minimum(np.log(chance) / np.log1p(-rate), coins[holder]).astype(np.int64) + 1
        ends = np.cumsum(draws)
        total = np.cumsum(gaps)
        before = total[ends - draws] - gaps[ends - draws]
        place = total - before[holder] - 1
        if (place[ends - 1] >= coins).all():
            inside = place < coins[holder]
            return holder[inside], place[inside]
        draws = draws * 2  # never seen: eight standard deviations
