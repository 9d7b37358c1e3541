"""An analysis as an operator sees it."""

from fleet.views import analytics as views
from shared.analytics.query import Protected, Query
from shared.api.analytics import Analysis, Bin, Estimate, Findings, Quantile
from shared.api.campaigns import DevicePrivacy
from shared.lifecycles import JobState
from shared.privacy import PrivacySpec, PrivacySpent

NOW = 1_000.0
FINDINGS = Findings(
    devices=9,
    count=Estimate(value=120.4, error=3.1),
    mean=Estimate(value=1.25, error=0.02),
    histogram=[
        Bin(low=0, high=1, count=40.2, error=2.0),
        Bin(low=1, high=2, count=80.4, error=2.0),
        Bin(low=2, high=3, count=-1.5, error=2.0),
    ],
    quantiles=[Quantile(q=0.5, value=1.2, low=1.1, high=1.3)],
)
SPENT = PrivacySpent(epsilon=6.0, delta=1e-5, epsilon_limit=8.0, dataset_id="d", unit="recording")
ANALYSIS = Analysis(
    analysis_id="analysis-1",
    task="physio",
    state=JobState.DONE,
    query=Query(feature="pulse", low=0, high=3, bins=3, protects=Protected.DEVICE, examples_max=5),
    unit="recording",
    privacy=PrivacySpec(
        epsilon=2, delta=1e-5, noise_multiplier=2.5, max_grad_norm=4, sampling_rate=1, steps_per_round=1, rounds=1
    ),
    privacy_spent=[DevicePrivacy(device_id="a", rounds=1, epsilon=2.0, delta=1e-5, ledger=SPENT)],
    findings=FINDINGS,
    created_at=NOW - 60,
)


def test_every_figure_comes_with_the_error_that_noise_gives_it() -> None:
    rows = {row.key: [cell.text for cell in row.cells] for row in views.finding_table(FINDINGS).rows}
    assert rows["mean"][1:3] == ["1.25", "± 0.02"]
    assert rows["quantile 0.5"][3] == "1.1 to 1.3, 95 times in 100"
    assert "variance" not in rows


def test_bars_are_to_scale_and_noise_below_nothing_has_none() -> None:
    table = views.histogram_table(FINDINGS.histogram)
    assert [row.cells[-1].text for row in table.rows] == ["█" * 20, "█" * 40, "▏"]
    assert table.rows[2].cells[2].text == "-1.5"


def test_what_is_protected_and_paid_is_said() -> None:
    facts = {name: cell.text for name, cell in views.facts(ANALYSIS, now=NOW)}
    assert facts["protects"] == "each device, which counts as at most 5 example(s)"
    assert facts["privacy"] == "ε 2 at δ 1e-05; noise 10 on each sum"
    assert "6.00 of 8" in facts["privacy spent"]
    unit = ANALYSIS.model_copy(update={"query": ANALYSIS.query.model_copy(update={"protects": Protected.UNIT})})
    assert "each recording" in dict(views.facts(unit, now=NOW))["protects"].text


def test_a_list_has_the_mean_where_there_is_one() -> None:
    waiting = ANALYSIS.model_copy(update={"findings": None, "state": JobState.RUNNING, "privacy": None})
    rows = views.analysis_table([ANALYSIS, waiting], now=NOW).rows
    assert [row.cells[6].text for row in rows] == ["1.25", "–"]
    assert rows[1].cells[4].text == "no noise"
