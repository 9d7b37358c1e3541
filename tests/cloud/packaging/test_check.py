"""The gates' own decisions, without a model."""

import math

import pytest

from cloud.packaging.check import check_finite
from cloud.packaging.errors import NotFiniteError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_json_cannot_say_is_refused_by_name(value: float) -> None:
    with pytest.raises(NotFiniteError, match="finite number as metric 'int8_unseen_accuracy', got"):
        check_finite({"fp32_bytes": 1.0, "int8_unseen_accuracy": value})


def test_finite_metrics_pass() -> None:
    check_finite({"fp32_bytes": 1e300, "parity_max_difference": 0.0})
