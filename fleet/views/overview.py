"""The four tiles on top: each thing to watch in a few words."""

from fleet import formats
from fleet.fleet_state import FleetState
from fleet.views import alerts, campaigns, devices, registry, rollouts
from fleet.views.table import Cell, Tone
from shared.lifecycles import JobState

_NONE = [Cell("none yet", Tone.MUTED)]


def tiles(state: FleetState) -> list[tuple[str, list[Cell]]]:
    """Title and line of each tile: devices, campaign, rollout, alerts."""
    return [
        ("Devices", _devices(state)),
        ("Training", _campaign(state)),
        ("Rollout", _rollout(state)),
        ("Alerts", _alerts(state)),
    ]


def _devices(state: FleetState) -> list[Cell]:
    figures = devices.summary(state.devices)
    everybody = figures.online == figures.total and figures.total > 0
    cells = [Cell(f"{figures.online}/{figures.total} online", Tone.GOOD if everybody else Tone.WARN)]
    if figures.off_target:
        cells.append(Cell(f"{figures.off_target} off target", Tone.WARN))
    if figures.drifting:
        cells.append(Cell(f"{figures.drifting} drifting", Tone.BAD))
    return cells if state.devices else _NONE


def _campaign(state: FleetState) -> list[Cell]:
    running = next((job for job in state.jobs if job.state is JobState.RUNNING and job.kind != "campaign"), None)
    if running is not None:
        name = running.kind.replace("_", " ")
        return [Cell(name, Tone.BUSY), Cell(formats.percent(registry.job_fraction(running)), Tone.STRONG)]
    campaign = state.campaign
    if campaign is None:
        return _NONE
    tone = campaigns.state_badge(campaign.state).tone
    cells = [Cell(f"round {campaigns.rounds_text(campaign)}", tone)]
    if campaigns.latest_accuracy(campaign) is not None:
        cells.append(Cell(formats.percent(campaigns.latest_accuracy(campaign)), Tone.STRONG))
        cells.append(Cell(campaigns.accuracy_sparkline(campaign, width=10), Tone.ACCENT))
    return cells


def _rollout(state: FleetState) -> list[Cell]:
    if state.rollout is None:
        return _NONE
    healthy, total = rollouts.counts(state.rollout)
    return [rollouts.state_badge(state.rollout.state), Cell(f"{healthy}/{total}", Tone.STRONG)]


def _alerts(state: FleetState) -> list[Cell]:
    critical, total = alerts.open_counts(state.alerts)
    if not total:
        return [Cell("all quiet", Tone.GOOD)]
    cells = [Cell(f"{total} open", Tone.WARN)]
    if critical:
        cells.append(Cell(f"{critical} critical", Tone.BAD))
    return cells
