"""One device's answer to a question about a feature: sums over its own data, with noise. Pure but for randomness.

Whether it may be given at all is the ledger's question, asked before. The Gaussian mechanism composes in the ledger
with training, where Laplace noise would need an account of its own.
"""

import numpy as np

from shared.analytics.errors import UnanswerableQueryError
from shared.analytics.query import SUMS, Floats, Query, sums_of
from shared.gaussian import GaussianNoise
from shared.randomness import SecureRandomness
from shared.tasks.task import Examples, Task
from shared.tensors import Array, Tensors


def answer_of(query: Query, task: Task, examples: Examples, *, noise: float, randomness: SecureRandomness) -> Tensors:
    """The sums over these examples, as a tensor `(query.size,)` float32.

    Raises:
        UnanswerableQueryError: The task has no such feature.
    """
    sums = sums_of(query, _values(query, task, examples), examples.units).astype(np.float32)
    return {SUMS: _with_noise(sums, noise, randomness) if noise else sums}


def _values(query: Query, task: Task, examples: Examples) -> Floats:
    features = task.schema.features
    if query.feature not in features:
        raise UnanswerableQueryError(
            f"Expected a feature of {task.name} among {', '.join(features)}, got {query.feature[:80]!r}"
        )
    if not len(examples):
        return np.zeros(0)
    return task.features(examples.inputs)[:, features.index(query.feature)].astype(np.float64)


def _with_noise(sums: Array, noise: float, randomness: SecureRandomness) -> Array:
    import torch

    total = torch.from_numpy(sums.copy())
    GaussianNoise(randomness, size=len(sums), standard_deviation=noise).add_to(total)
    return total.numpy()
