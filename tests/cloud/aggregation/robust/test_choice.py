import pytest

from cloud.aggregation.choice import robust_rule_of
from cloud.aggregation.robust.bulyan import Bulyan
from cloud.aggregation.robust.geometric_median import GeometricMedian
from cloud.aggregation.robust.krum import Krum, MultiKrum
from cloud.aggregation.robust.median import Median
from cloud.aggregation.robust.norm_clipping import NormClipping
from cloud.aggregation.robust.trimmed_mean import TrimmedMean
from cloud.aggregation.rule import RobustRule
from shared.strategies import STRATEGIES, RobustSettings, strategy

CHOICES: dict[str, tuple[dict[str, float], RobustRule]] = {
    "median": ({}, Median()),
    "trimmed_mean": ({"trimmed_fraction": 0.3}, TrimmedMean(0.3)),
    "krum": ({"liars": 4}, Krum(4)),
    "multi_krum": ({"liars": 4, "selected": 3}, MultiKrum(4, selected=3)),
    "bulyan": ({"liars": 4, "is_selected_at_once": True}, Bulyan(4, is_selected_at_once=True)),
    "geometric_median": ({"smoothing": 0.1}, GeometricMedian(0.1)),
    "norm_clipping": ({"norm_max": 2.5}, NormClipping(2.5)),
}


@pytest.mark.parametrize(("name", "choice"), CHOICES.items(), ids=CHOICES)
def test_a_name_and_settings_make_the_rule(name: str, choice: tuple[dict[str, float], RobustRule]) -> None:
    settings = strategy(name, choice[0])
    assert isinstance(settings, RobustSettings)
    assert robust_rule_of(settings) == choice[1]


def test_every_robust_strategy_is_tried() -> None:
    assert {name for name, kind in STRATEGIES.items() if issubclass(kind, RobustSettings)} == set(CHOICES)
