"""Analyses as rows and lines: what was asked, what it costs, the answer with its errors, a histogram of bars."""

from collections.abc import Sequence

from fleet import formats
from fleet.views.campaigns import state_badge
from fleet.views.table import NOTHING, Cell, Row, Table, Tone
from shared.analytics.query import Protected
from shared.api.analytics import Analysis, Bin, Estimate, Findings
from shared.privacy import PrivacySpec

COLUMNS = ("analysis", "task", "feature", "state", "privacy", "devices", "mean", "asked")
FINDING_COLUMNS = ("statistic", "value", "noise", "note")
BIN_COLUMNS = ("from", "to", "count", "noise", "")
BAR_WIDTH = 40


def analysis_table(analyses: Sequence[Analysis], *, now: float) -> Table:
    """One row for each, in the order given."""
    return Table.of(COLUMNS, (_analysis_row(analysis, now=now) for analysis in analyses))


def _analysis_row(analysis: Analysis, *, now: float) -> Row:
    found = analysis.findings
    return Row(
        analysis.analysis_id,
        (
            Cell(analysis.analysis_id, Tone.STRONG),
            Cell(analysis.task),
            Cell(analysis.query.feature),
            state_badge(analysis.state),
            _privacy_badge(analysis.privacy),
            Cell(str(found.devices), order=found.devices) if found else NOTHING,
            Cell(f"{found.mean.value:.4g}", Tone.ACCENT, order=found.mean.value) if found and found.mean else NOTHING,
            Cell(formats.ago(analysis.created_at, now=now), order=-analysis.created_at),
        ),
    )


def _privacy_badge(privacy: PrivacySpec | None) -> Cell:
    return Cell("no noise", Tone.WARN) if privacy is None else Cell(f"ε {privacy.epsilon:g}", Tone.GOOD)


def facts(analysis: Analysis, *, now: float) -> list[tuple[str, Cell]]:
    """One analysis as name and value."""
    query = analysis.query
    lines = [
        ("analysis", Cell(analysis.analysis_id, Tone.STRONG)),
        ("task", Cell(analysis.task)),
        ("feature", Cell(query.feature, Tone.STRONG)),
        ("state", state_badge(analysis.state)),
        ("range", Cell(f"{query.low:g} to {query.high:g}; what is beyond counts as its ends")),
        ("protects", Cell(_protects(analysis))),
        ("privacy", _privacy_fact(analysis.privacy)),
        ("privacy spent", _spent_fact(analysis)),
        ("asked", Cell(formats.ago(analysis.created_at, now=now))),
    ]
    if analysis.secure:
        fact = f"the coordinator sees sums of at least {analysis.secure.clients_min} devices"
        lines.append(("secure aggregation", Cell(fact, Tone.GOOD)))
    if analysis.error:
        lines.append(("error", Cell(analysis.error, Tone.BAD)))
    return lines


def finding_table(found: Findings) -> Table:
    """Every figure with the error that noise gives it."""
    rows = [_finding("devices", f"{found.devices}", NOTHING)]
    rows.append(_finding("examples", f"{found.count.value:.1f}", _error(found.count)))
    for name, figure in (("mean", found.mean), ("variance", found.variance)):
        if figure is not None:
            rows.append(_finding(name, f"{figure.value:.4g}", _error(figure)))
    for each in found.quantiles:
        between = f"{each.low:.4g} to {each.high:.4g}, 95 times in 100" if each.low < each.high else ""
        rows.append(_finding(f"quantile {each.q:g}", f"{each.value:.4g}", NOTHING, note=between))
    return Table.of(FINDING_COLUMNS, rows)


def histogram_table(bins: Sequence[Bin]) -> Table:
    """A bar for each bin; a count that noise made negative has none."""
    largest = max((each.count for each in bins), default=0.0)
    return Table.of(BIN_COLUMNS, (_bin_row(each, largest=largest) for each in bins))


def _bin_row(each: Bin, *, largest: float) -> Row:
    share = max(0.0, each.count) / largest if largest > 0 else 0.0
    cells = (Cell(f"{each.low:.4g}"), Cell(f"{each.high:.4g}"), Cell(f"{each.count:.1f}", order=each.count))
    return Row(f"{each.low:g}", (*cells, _error(each), Cell("█" * round(share * BAR_WIDTH) or "▏", Tone.ACCENT)))


def _finding(name: str, value: str, noise: Cell, *, note: str = "") -> Row:
    return Row(name, (Cell(name, Tone.STRONG), Cell(value, Tone.ACCENT), noise, Cell(note, Tone.MUTED)))


def _error(figure: Estimate | Bin) -> Cell:
    return Cell(f"± {figure.error:.2g}", Tone.MUTED) if figure.error else NOTHING


def _protects(analysis: Analysis) -> str:
    query = analysis.query
    what = "each device" if query.protects is Protected.DEVICE else f"each {analysis.unit}"
    return f"{what}, which counts as at most {query.examples_max} example(s)"


def _privacy_fact(privacy: PrivacySpec | None) -> Cell:
    if privacy is None:
        return Cell("no noise: the answer is not differentially private", Tone.WARN)
    noise = privacy.noise_multiplier * privacy.max_grad_norm
    return Cell(f"ε {privacy.epsilon:g} at δ {privacy.delta:g}; noise {noise:.3g} on each sum", Tone.GOOD)


def _spent_fact(analysis: Analysis) -> Cell:
    if not analysis.privacy_spent:
        return NOTHING
    most = analysis.privacy_spent[0]
    ledgers = [each.ledger for each in analysis.privacy_spent if each.ledger]
    words = f"ε {most.epsilon:.2f} on {len(analysis.privacy_spent)} device(s)"
    if ledgers:
        nearest = max(ledgers, key=lambda each: each.epsilon / each.epsilon_limit)
        words += f"; of all it ever gave, the most is {nearest.epsilon:.2f} of {nearest.epsilon_limit:g}"
    return Cell(words)
