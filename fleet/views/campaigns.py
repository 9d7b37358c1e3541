"""Campaigns as rows and lines: rounds, accuracy, what each device did, what privacy they may cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet import formats
from fleet.views.privacy import refusals_text
from fleet.views.table import NOTHING, Cell, Row, Table, Tone
from shared.api.campaigns import Campaign, DeviceOutcome, DevicePrivacy, FlowerRun, Round, SelectionRules
from shared.api.traces import Trace, TraceKind
from shared.lifecycles import JobState
from shared.privacy import Adjacency, NoiseBy

COLUMNS = ("campaign", "task", "state", "rounds", "strategy", "privacy", "result", "started")
ROUND_COLUMNS = ("round", "state", "accuracy", "own models", "loss", "devices", "down", "up", "took", "reason")
OUTCOME_COLUMNS = ("device", "outcome", "ε spent", "took", "own model", "anomaly", "reason", "examples", "update")

PRIVACY_COLUMNS = ("device", "rounds", "ε of this campaign", "ε of all, by its ledger")

_STATE = {
    JobState.QUEUED: ("○", Tone.MUTED),
    JobState.RUNNING: ("◐", Tone.BUSY),
    JobState.PAUSED: ("‖", Tone.WARN),
    JobState.DONE: ("✓", Tone.GOOD),
    JobState.FAILED: ("✕", Tone.BAD),
    JobState.CANCELLED: ("–", Tone.MUTED),
}
_OUTCOME = {
    "waiting": Tone.BUSY,
    "done": Tone.GOOD,
    "refused": Tone.WARN,
    "failed": Tone.BAD,
    "late": Tone.WARN,
    "silent": Tone.WARN,
    "not asked": Tone.MUTED,
}
_WORTH_SAYING = 1.05
_ROUND = {"done": Tone.GOOD, "abandoned": Tone.BAD}


def state_badge(state: JobState) -> Cell:
    """A job's state, also a campaign's."""
    mark, tone = _STATE[state]
    return Cell(f"{mark} {state.value}", tone)


def campaign_table(campaigns: Sequence[Campaign], *, now: float) -> Table:
    """One row for each campaign, in the order given."""
    return Table.of(COLUMNS, (_campaign_row(campaign, now=now) for campaign in campaigns))


def _campaign_row(campaign: Campaign, *, now: float) -> Row:
    result = campaign.result_model_version_id
    return Row(
        campaign.campaign_id,
        (
            Cell(campaign.campaign_id, Tone.STRONG),
            Cell(campaign.task),
            state_badge(campaign.state),
            Cell(rounds_text(campaign), order=campaign.rounds_done),
            Cell(campaign.strategy, Tone.MUTED),
            privacy_badge(campaign),
            Cell(result) if result else NOTHING,
            Cell(formats.ago(campaign.created_at, now=now), order=-campaign.created_at),
        ),
    )


def rounds_text(campaign: Campaign) -> str:
    """Rounds done, of how many: a Flower app need not say."""
    return f"{campaign.rounds_done}/{campaign.rounds}" if campaign.rounds else f"{campaign.rounds_done}"


def privacy_badge(campaign: Campaign) -> Cell:
    """What all rounds may cost one unit on a device; or each device with all its data, and how much of it is spent."""
    if campaign.flower is not None:
        return Cell("the app's", Tone.WARN)
    planned = [f"ε {campaign.privacy.epsilon:g}"] if campaign.privacy else []
    if user := campaign.user_privacy:
        spent = campaign.user_privacy_spent.epsilon if campaign.user_privacy_spent else 0.0
        planned.append(f"ε {spent:.2g} of {user.epsilon:.3g} a device")
    return Cell(", ".join(planned), Tone.GOOD) if planned else Cell("no noise", Tone.WARN)


def headline(campaign: Campaign, *, now: float) -> list[Cell]:
    """One line: task, state, rounds, privacy, accuracy so far, and how long it runs."""
    end = campaign.finished_at or now
    cells = [
        Cell(campaign.task, Tone.STRONG),
        state_badge(campaign.state),
        Cell(f"round {rounds_text(campaign)}"),
        privacy_badge(campaign),
        Cell(formats.duration(max(0.0, end - campaign.created_at)), Tone.MUTED),
    ]
    latest = latest_accuracy(campaign)
    if latest is not None:
        cells.insert(3, Cell(_accuracy_with_gain(latest, campaign.start_accuracy), Tone.ACCENT))
    return cells


def _accuracy_with_gain(accuracy: float, start: float | None) -> str:
    if start is None:
        return formats.percent(accuracy)
    gain = (accuracy - start) * 100
    return f"{formats.percent(accuracy)} ({'+' if gain >= 0 else '−'}{abs(gain):.1f})"


def progress(campaign: Campaign) -> float:
    """The share of rounds that are done, 0 to 1."""
    return campaign.rounds_done / campaign.rounds if campaign.rounds else 0.0


def accuracy_points(campaign: Campaign) -> list[tuple[float, float]]:
    """Round and accuracy as a fraction, oldest first; the starting model is round 0."""
    start = [] if campaign.start_accuracy is None else [(0.0, campaign.start_accuracy)]
    rounds = sorted(campaign.history, key=_age_rank)
    return start + [(float(round_.round), round_.accuracy) for round_ in rounds if round_.accuracy is not None]


def round_ticks(points: Sequence[tuple[float, float]]) -> list[tuple[float, str]]:
    """Where the x axis of a plot over rounds has its numbers: at most ten, whole ones."""
    last = int(max((x for x, _ in points), default=0))
    return [(float(number), str(number)) for number in range(0, last + 1, max(1, -(-last // 9)))]


def latest_accuracy(campaign: Campaign) -> float | None:
    """The newest aggregated model's accuracy; None until a round has one."""
    measured = [accuracy for round_, accuracy in accuracy_points(campaign) if round_ > 0 or len(campaign.history) == 0]
    return measured[-1] if measured else None


def accuracy_sparkline(campaign: Campaign, *, width: int = 16) -> str:
    """Accuracy per round between the lowest and the highest seen."""
    values = [accuracy for _, accuracy in accuracy_points(campaign)]
    if not values:
        return ""
    low, high = min(values), max(values)
    margin = max(0.01, (high - low) * 0.1)
    return formats.sparkline(values, width=width, low=low - margin, high=high + margin)


def current_round(campaign: Campaign) -> Round | None:
    """The newest try at the newest round."""
    return max(campaign.history, key=_age_rank, default=None)


def round_table(campaign: Campaign, *, now: float) -> Table:
    """One row for each round, newest first."""
    newest_first = sorted(campaign.history, key=_age_rank, reverse=True)
    return Table.of(ROUND_COLUMNS, (_round_row(round_, now=now) for round_ in newest_first))


def _round_row(round_: Round, *, now: float) -> Row:
    done = sum(outcome.status == "done" for outcome in round_.devices)
    complete = done == len(round_.devices)
    again = f" try {round_.attempt}" if round_.attempt > 1 else ""
    return Row(
        f"{round_.round}.{round_.attempt}",
        (
            Cell(f"{round_.round}{again} {round_.message_type}".rstrip(), Tone.STRONG, order=round_.round),
            Cell(round_.state, _ROUND.get(round_.state, Tone.BUSY)),
            Cell(formats.percent(round_.accuracy), Tone.ACCENT if round_.accuracy is not None else Tone.MUTED),
            Cell(formats.percent(round_.personal_accuracy), Tone.MUTED),
            Cell(formats.number(round_.loss, digits=3), Tone.MUTED),
            Cell(f"{done}/{len(round_.devices)}", Tone.PLAIN if complete else Tone.WARN),
            Cell(_moved(round_.bytes_down, raw=round_.bytes_down_raw), Tone.MUTED, order=round_.bytes_down),
            Cell(_moved(round_.bytes_up, raw=round_.bytes_up_raw), Tone.MUTED, order=round_.bytes_up),
            Cell(formats.duration((round_.finished_at or now) - round_.started_at), Tone.MUTED),
            Cell(round_.reason, Tone.WARN),
        ),
    )


def outcome_table(round_: Round | None) -> Table:
    """One row for each device of a round; who could not or would not comes first, who was not asked last."""
    if round_ is None:
        return Table(OUTCOME_COLUMNS)
    rank = {"failed": 0, "refused": 1, "silent": 2, "late": 3, "waiting": 4}
    worst_first = sorted(round_.devices, key=lambda outcome: (rank.get(outcome.status, 5), outcome.device_id))
    left_out = [
        DeviceOutcome(device_id=device_id, status="not asked", reason=reason)
        for device_id, reason in sorted(round_.excluded.items())
    ]
    asked = (
        outcome if outcome.reason else outcome.model_copy(update={"reason": round_.chosen.get(outcome.device_id, "")})
        for outcome in worst_first
    )
    return Table.of(OUTCOME_COLUMNS, (_outcome_row(outcome) for outcome in [*asked, *left_out]))


def _outcome_row(outcome: DeviceOutcome) -> Row:
    spent = outcome.privacy
    return Row(
        outcome.device_id,
        (
            Cell(outcome.device_id, Tone.STRONG),
            Cell(outcome.status, _OUTCOME.get(outcome.status, Tone.PLAIN)),
            Cell(f"{spent.epsilon:.2f} of {spent.epsilon_limit:g}", order=spent.epsilon) if spent else NOTHING,
            Cell(formats.duration(outcome.duration_s), order=outcome.duration_s) if outcome.duration_s else NOTHING,
            _own_model(outcome),
            _anomaly(outcome),
            Cell(outcome.reason, Tone.WARN),
            Cell(str(outcome.examples), order=outcome.examples) if outcome.examples else NOTHING,
            Cell(_update(outcome), order=outcome.update_bytes) if outcome.update_bytes else NOTHING,
        ),
    )


def _update(outcome: DeviceOutcome) -> str:
    """Its size and how it was sent."""
    size = formats.size(outcome.update_bytes)
    return f"{size} {outcome.compression}" if outcome.compression else size


def _moved(count: int, *, raw: int) -> str:
    """Bytes, and how many times fewer they are than they would have been, where it is worth a word."""
    fewer = raw / count if count else 0.0
    return f"{formats.size(count)} ({fewer:.1f}x fewer)" if fewer >= _WORTH_SAYING else formats.size(count)


def _own_model(outcome: DeviceOutcome) -> Cell:
    """How good the device's own model is on what it holds out, where the strategy keeps one on it."""
    accuracy = outcome.metrics.get("personal-accuracy")
    return NOTHING if accuracy is None else Cell(formats.percent(accuracy), Tone.ACCENT, order=accuracy)


def _anomaly(outcome: DeviceOutcome) -> Cell:
    """How unlike the others the update was, where the strategy says so; left out of the model is a warning."""
    if outcome.anomaly_score is None:
        return NOTHING
    text = formats.number(outcome.anomaly_score, digits=3)
    if outcome.is_used:
        return Cell(text, order=outcome.anomaly_score)
    return Cell(f"{text} not used", Tone.WARN, order=outcome.anomaly_score)


def selection_fact(rules: SelectionRules) -> str:
    """The rules that differ from asking everybody, as they were given."""
    given = rules.model_dump(mode="json", exclude_defaults=True)
    words = (f"{name}={_in_words(value)}" for name, value in given.items())
    return ", ".join(words) or "every device that has the task"


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return "+".join(f"{name}:{each}" for name, each in value.items())
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def strategy_fact(campaign: Campaign) -> str:
    """The strategy with its settings, as `campaigns start` takes them."""
    settings = [f"{key}={value}" for key, value in _flat(campaign.strategy_settings) if value is not None]
    return f"{campaign.strategy} ({', '.join(settings)})" if settings else campaign.strategy


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:  # Any: JSON
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return pairs


def facts(campaign: Campaign, *, now: float) -> list[tuple[str, Cell]]:
    """One campaign as name and value."""
    if campaign.flower is not None:
        return _flower_facts(campaign, campaign.flower, now=now)
    lines = [
        ("campaign", Cell(campaign.campaign_id, Tone.STRONG)),
        ("task", Cell(campaign.task)),
        ("state", state_badge(campaign.state)),
        ("rounds", Cell(f"{formats.bar(progress(campaign), width=16)} {rounds_text(campaign)}")),
        ("strategy", Cell(strategy_fact(campaign))),
        ("updates", Cell(campaign.compression or "in full")),
        ("selection", Cell(selection_fact(campaign.selection))),
        ("privacy", _privacy_fact(campaign)),
        ("privacy spent", _spent_fact(campaign)),
        *_user_facts(campaign),
        ("starts from", Cell(campaign.start_model_version_id)),
        ("starting accuracy", Cell(formats.percent(campaign.start_accuracy))),
        (
            "accuracy",
            Cell(f"{formats.percent(latest_accuracy(campaign))}  {accuracy_sparkline(campaign)}", Tone.ACCENT),
        ),
        ("bytes", Cell(_bytes_fact(campaign))),
        ("result", Cell(campaign.result_model_version_id or "–")),
        ("created", Cell(formats.ago(campaign.created_at, now=now))),
    ]
    if campaign.would_refuse:
        lines.append(("would refuse", Cell(refusals_text(campaign.would_refuse), Tone.WARN)))
    if campaign.secure:
        fact = f"the coordinator sees sums of at least {campaign.secure.clients_min} updates"
        lines.append(("secure aggregation", Cell(fact, Tone.GOOD)))
    return lines + _last_facts(campaign, now=now)


def _last_facts(campaign: Campaign, *, now: float) -> list[tuple[str, Cell]]:
    lines = []
    if campaign.start_at is not None and campaign.start_at > now:
        lines.append(("starts in", Cell(formats.duration(campaign.start_at - now), Tone.BUSY)))
    if campaign.error:
        lines.append(("error", Cell(campaign.error, Tone.BAD)))
    return lines


def _flower_facts(campaign: Campaign, flower: FlowerRun, *, now: float) -> list[tuple[str, Cell]]:
    """Of a campaign that runs a Flower app: what the app says of itself is not ours to say."""
    config = ", ".join(f"{key}={value}" for key, value in flower.config.items())
    lines = [
        ("campaign", Cell(campaign.campaign_id, Tone.STRONG)),
        ("Flower app", Cell(f"{flower.app} {flower.version}, content {flower.digest[:12]}")),
        ("run config", Cell(config or "–")),
        ("state", state_badge(campaign.state)),
        ("rounds", Cell(f"{formats.bar(progress(campaign), width=16)} {rounds_text(campaign)}")),
        ("selection", Cell(f"{selection_fact(campaign.selection)}; the app draws among them")),
        ("privacy", Cell("the app's own: no ledger of a device can vouch for it", Tone.WARN)),
        ("bytes", Cell(_bytes_fact(campaign))),
        ("left behind", Cell(", ".join(flower.files) or "–")),
        ("created", Cell(formats.ago(campaign.created_at, now=now))),
    ]
    if flower.folder:
        lines.append(("in", Cell(f"{flower.folder} on the coordinator's machine")))
    return lines + _last_facts(campaign, now=now)


def trace_facts(trace: Trace, *, path: Path) -> list[tuple[str, Cell]]:
    """What a written trace holds."""
    works = [row for row in trace.rows if row.kind is TraceKind.WORK]
    last_s = max((row.end_s or row.start_s for row in trace.rows), default=0.0)
    return [
        ("file", Cell(str(path), Tone.STRONG)),
        ("devices", Cell(str(len({row.client for row in trace.rows})))),
        ("work", Cell(f"{len(works)}, of it {sum(row.outcome == 'done' for row in works)} done")),
        ("covers", Cell(formats.duration(last_s))),
    ]


def _bytes_fact(campaign: Campaign) -> str:
    """All that moved, and what a megabyte of it brought in accuracy."""
    down, up, down_raw, up_raw = (
        sum(getattr(round_, name) for round_ in campaign.history)
        for name in ("bytes_down", "bytes_up", "bytes_down_raw", "bytes_up_raw")
    )
    text = f"{_moved(down, raw=down_raw)} down, {_moved(up, raw=up_raw)} up"
    latest, start = latest_accuracy(campaign), campaign.start_accuracy
    if latest is None or start is None or not down + up:
        return text
    return f"{text}; {(latest - start) * 100 / (down + up) * 1e6:+.2f} points of accuracy for each MB"


def privacy_table(campaign: Campaign) -> Table:
    """One row for each device: what this campaign may have cost its data, and what its ledger says of all of them."""
    return Table.of(PRIVACY_COLUMNS, (_privacy_row(each) for each in campaign.privacy_spent))


def _privacy_row(spent: DevicePrivacy) -> Row:
    ledger = spent.ledger
    return Row(
        spent.device_id,
        (
            Cell(spent.device_id, Tone.STRONG),
            Cell(str(spent.rounds), order=spent.rounds),
            Cell(f"{spent.epsilon:.2f} at δ {spent.delta:g}", order=spent.epsilon),
            Cell(f"{ledger.epsilon:.2f} of {ledger.epsilon_limit:g} at δ {ledger.delta:g}", order=ledger.epsilon)
            if ledger
            else NOTHING,
        ),
    )


def _spent_fact(campaign: Campaign) -> Cell:
    """Overall: devices hold different units, so the most expensive device is what the campaign cost."""
    if campaign.privacy is None or not campaign.privacy_spent:
        return NOTHING
    most = campaign.privacy_spent[0]
    return Cell(f"ε {most.epsilon:.2f} of {campaign.privacy.epsilon:g}, on {most.device_id} in {most.rounds} round(s)")


def plan_facts(campaign: Campaign) -> list[tuple[str, Cell]]:
    """What a campaign would be, had it been started."""
    wanted = {
        "task",
        "strategy",
        "updates",
        "selection",
        "privacy",
        "each device",
        "would refuse",
        "secure aggregation",
    }
    return [(name, cell) for name, cell in facts(campaign, now=campaign.created_at) if name in wanted]


def _user_facts(campaign: Campaign) -> list[tuple[str, Cell]]:
    """How devices are hidden, and what the rounds so far cost each of them."""
    spec, spent = campaign.user_privacy, campaign.user_privacy_spent
    if spec is None or spent is None:
        return []
    bound = f"clip {spec.clip_norm:g}" + (", adaptive" if spec.adaptive else "")
    if spec.adjacency is Adjacency.ADD_OR_REMOVE_ONE:
        cohort = f"amplified by coins of {spec.sampling_rate:g}"
    else:
        cohort = "not amplified by sampling"
    planned = (
        f"ε {spec.epsilon:.3g} at δ {spec.delta:g} for each device in all; noise {spec.noise_multiplier:.3g} by "
        f"{'the coordinator' if spec.noise_by is NoiseBy.SERVER else 'the devices'}, {bound}, {cohort}"
    )
    return [
        ("each device", Cell(planned, Tone.GOOD)),
        ("spent for each", Cell(f"ε {spent.epsilon:.3g} of {spec.epsilon:.3g} in {spent.rounds} round(s)")),
    ]


def _privacy_fact(campaign: Campaign) -> Cell:
    privacy = campaign.privacy
    if privacy is None and campaign.user_privacy is not None:
        return Cell("of each device, not of what it has: see below")
    if privacy is None:
        return Cell("no noise: updates are not differentially private", Tone.WARN)
    return Cell(
        f"ε {privacy.epsilon:g} at δ {privacy.delta:g} in all; noise {privacy.noise_multiplier:.2f}, clip "
        f"{privacy.max_grad_norm:g}, sampling {privacy.sampling_rate:.3f}, {privacy.steps_per_round} step(s) a round",
        Tone.GOOD,
    )


def _age_rank(round_: Round) -> tuple[int, int]:
    return round_.round, round_.attempt
