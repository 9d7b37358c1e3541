"""An update changes the tensors it names, and nothing that does not fit is applied."""

import numpy as np
import pytest

from shared.tasks.updates import MalformedUpdateError, apply_update
from shared.tensors import Array, Tensors

MODEL: Tensors = {"body": np.zeros((2, 2), np.float32), "head": np.zeros(3, np.float32)}


def test_replaces_what_was_trained_and_keeps_the_rest() -> None:
    changed = apply_update(MODEL, {"head": np.ones(3, np.float32)})
    np.testing.assert_array_equal(changed["head"], 1)
    np.testing.assert_array_equal(changed["body"], 0)
    np.testing.assert_array_equal(MODEL["head"], 0)


@pytest.mark.parametrize(
    "update",
    [
        {},
        {"tail": np.ones(3, np.float32)},
        {"head": np.ones(4, np.float32)},
        {"head": np.ones(3, np.float64)},
        {"head": np.array([1, np.nan, 1], np.float32)},
        {"head": np.array([1, np.inf, 1], np.float32)},
    ],
)
def test_refuses_an_update_that_does_not_fit(update: dict[str, Array]) -> None:
    with pytest.raises(MalformedUpdateError):
        apply_update(MODEL, update)
