"""Bulyan: El Mhamdi, Guerraoui and Rouault 2018 (arXiv:1802.07927), section 4, over Krum.

Krum alone lets a liar hide a large change of one parameter in a distance over millions of them. Bulyan first selects by
Krum, then looks at each parameter by itself.
"""

from dataclasses import dataclass

import torch

from cloud.aggregation.robust.coordinates import in_order
from cloud.aggregation.robust.geometry import gram_matrix, squared_distances_between
from cloud.aggregation.robust.krum import best, krum_scores
from cloud.aggregation.robust.tolerance import expect_updates
from cloud.aggregation.rows import blocks
from cloud.aggregation.rule import Combined, Rows, Vector


@dataclass(frozen=True)
class Bulyan:
    """In each parameter the mean of the selected values that are nearest to their median.

    `clients - 2 * liars` updates are selected, all but `2 * liars` of their values averaged. Scores are Krum's over all
    updates. Needs `4 * liars + 3` updates.
    """

    liars: int
    is_selected_at_once: bool = False
    """Whether the updates with the best scores are selected all at once, as Flower does it. The paper selects the best,
    takes it out and scores the others anew, which keeps liars from vouching for each other."""

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        expect_updates(rows, 4 * self.liars + 3, f"Bulyan with {self.liars} liars")
        distances = squared_distances_between(gram_matrix(rows))
        scores, count = krum_scores(distances, liars=self.liars), rows.clients - 2 * self.liars
        selected = best(scores, count) if self.is_selected_at_once else _one_by_one(distances, self.liars, count)
        used = torch.zeros_like(scores, dtype=torch.bool)
        used[selected] = True
        return Combined(_mean_near_median(rows, used, averaged=count - 2 * self.liars), scores, used)


def _one_by_one(distances: torch.Tensor, liars: int, count: int) -> torch.Tensor:
    """The best by Krum, then the best of the others, and so on: `(count,)` clients."""
    left = torch.arange(len(distances), device=distances.device)
    # Each client's others, nearest first. Taking one out leaves a sorted list sorted, so this sort is the only one.
    nearness, others = distances.clone().fill_diagonal_(-1).sort(dim=1)
    nearness, others = nearness[:, 1:], others[:, 1:]
    selected = []
    for _ in range(count):
        neighbours = max(1, len(left) - liars - 2)
        position = best(nearness[:, :neighbours].sum(dim=1), 1)
        client = left[position]
        selected.append(client)
        stays, rest = left != client, others != client
        rest &= stays[:, None]
        left = left[stays]
        shape = (len(left), max(0, len(left) - 1))
        nearness, others = nearness[rest].view(shape), others[rest].view(shape)
    return torch.cat(selected)


def _mean_near_median(rows: Rows, used: torch.Tensor, *, averaged: int) -> Vector:
    total = torch.zeros(0)
    for where, block in blocks(rows):
        if not len(total):
            total = block.new_empty(rows.parameters)
        total[where] = _nearest_mean(in_order(block[used]), averaged)
    return total


def _nearest_mean(ordered: torch.Tensor, count: int) -> torch.Tensor:
    """In each sorted column the mean of the `count` values nearest to its median, `(columns,)`.

    They lie side by side, so it is enough to move a window over the column and keep the one whose ends are nearest.
    """
    height = len(ordered)
    median = (ordered[(height - 1) // 2] + ordered[height // 2]) / 2
    window = ordered[:count].sum(dim=0, dtype=torch.float64)
    nearest, mean = torch.full_like(median, torch.inf), torch.empty_like(median)
    for start in range(height - count + 1):
        if start:
            window += ordered[start + count - 1] - ordered[start - 1].double()
        reach = torch.maximum(median - ordered[start], ordered[start + count - 1] - median)
        is_nearer = reach < nearest
        mean = torch.where(is_nearer, (window / count).to(mean.dtype), mean)
        nearest = torch.where(is_nearer, reach, nearest)
    return mean
