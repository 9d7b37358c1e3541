"""Rollouts as rows and lines: waves, their devices, and why one does not move."""

from collections.abc import Sequence

from fleet import formats
from fleet.views.table import NOTHING, Cell, Row, Table, Tone
from shared.api.rollouts import DeviceProgress, Rollout, Wave
from shared.lifecycles import ROLLOUT_TRANSITIONS, RolloutEvent, RolloutState

COLUMNS = ("rollout", "release", "state", "waves", "devices", "created", "reason")
WAVE_COLUMNS = ("wave", "state", "progress", "devices", "took")
DEVICE_COLUMNS = ("device", "wave", "state", "reason")

_STATE = {
    RolloutState.PLANNED: ("○", Tone.ACCENT),
    RolloutState.RUNNING: ("◐", Tone.BUSY),
    RolloutState.HALTED: ("▲", Tone.BAD),
    RolloutState.STOPPED: ("■", Tone.MUTED),
    RolloutState.DONE: ("✓", Tone.GOOD),
}
_WAVE = {"waiting": Tone.MUTED, "moving": Tone.BUSY, "soaking": Tone.BUSY, "healthy": Tone.GOOD, "failed": Tone.BAD}
_DEVICE = {
    "waiting": Tone.MUTED,
    "left_out": Tone.MUTED,
    "healthy": Tone.GOOD,
    "active": Tone.GOOD,
    "late": Tone.WARN,
    "failed": Tone.BAD,
}


def state_badge(state: RolloutState) -> Cell:
    mark, tone = _STATE[state]
    return Cell(f"{mark} {state.value}", tone)


def allows(rollout: Rollout, event: RolloutEvent) -> bool:
    """Whether an operator may do this to it now."""
    return (rollout.state, event) in ROLLOUT_TRANSITIONS


def rollout_table(rollouts: Sequence[Rollout], *, now: float) -> Table:
    """One row for each rollout, in the order given."""
    return Table.of(COLUMNS, (_rollout_row(rollout, now=now) for rollout in rollouts))


def _rollout_row(rollout: Rollout, *, now: float) -> Row:
    healthy_waves = sum(wave.state == "healthy" for wave in rollout.waves)
    healthy, total = counts(rollout)
    return Row(
        rollout.rollout_id,
        (
            Cell(rollout.rollout_id, Tone.STRONG),
            Cell(rollout.release_id),
            state_badge(rollout.state),
            Cell(f"{healthy_waves}/{len(rollout.waves)}", order=healthy_waves),
            Cell(f"{healthy}/{total}", order=healthy),
            Cell(formats.ago(rollout.created_at, now=now), order=-rollout.created_at),
            Cell(rollout.reason, Tone.WARN),
        ),
    )


def counts(rollout: Rollout) -> tuple[int, int]:
    """Devices that are healthy on the release, and all of them."""
    states = [device.state for wave in rollout.waves for device in wave.devices]
    return states.count("healthy"), len(states)


def headline(rollout: Rollout, *, now: float) -> list[Cell]:
    """One line: release, state, devices, age."""
    healthy, total = counts(rollout)
    return [
        Cell(formats.short(rollout.release_id), Tone.STRONG),
        state_badge(rollout.state),
        Cell(f"{healthy}/{total} devices healthy"),
        Cell(f"soak {formats.duration(rollout.soak_s)}", Tone.MUTED),
        Cell(formats.ago(rollout.created_at, now=now), Tone.MUTED),
    ]


def wave_table(rollout: Rollout, *, now: float) -> Table:
    """One row for each wave, in order."""
    return Table.of(WAVE_COLUMNS, (_wave_row(wave, now=now) for wave in rollout.waves))


def _wave_row(wave: Wave, *, now: float) -> Row:
    healthy = sum(device.state == "healthy" for device in wave.devices)
    took = NOTHING
    if wave.started_at is not None:
        took = Cell(formats.duration((wave.finished_at or now) - wave.started_at), Tone.MUTED)
    return Row(
        str(wave.number),
        (
            Cell(wave_name(wave), Tone.STRONG),
            Cell(wave.state, _WAVE.get(wave.state, Tone.PLAIN)),
            Cell(meter(wave), _WAVE.get(wave.state, Tone.PLAIN)),
            Cell(f"{healthy}/{len(wave.devices)}"),
            took,
        ),
    )


def wave_name(wave: Wave) -> str:
    return f"{wave.number} canary" if wave.number == 1 else str(wave.number)


def meter(wave: Wave, *, width: int = 16) -> str:
    """Healthy devices of a wave as a bar on a track."""
    healthy = sum(device.state == "healthy" for device in wave.devices)
    return formats.bar(healthy / max(1, len(wave.devices)), width=width).replace(" ", "░")


def device_table(rollout: Rollout) -> Table:
    """One row for each device: who failed comes first, who is healthy last; then who is left out."""
    moved = [(device, wave.number) for wave in rollout.waves for device in wave.devices]
    urgent_first = sorted(moved, key=lambda pair: (_urgency(pair[0]), pair[1], pair[0].device_id))
    rows = [_device_row(str(number), device) for device, number in urgent_first]
    return Table.of(DEVICE_COLUMNS, [*rows, *(_device_row("–", device) for device in rollout.left_out)])


def _device_row(wave: str, device: DeviceProgress) -> Row:
    tone = _DEVICE.get(device.state, Tone.BUSY)
    return Row(
        device.device_id,
        (
            Cell(device.device_id, Tone.STRONG),
            Cell(wave, Tone.MUTED),
            Cell(device.state.replace("_", " "), tone),
            Cell(device.reason, Tone.BAD if device.state == "failed" else Tone.WARN),
        ),
    )


def _urgency(device: DeviceProgress) -> int:
    rank = {"failed": 0, "late": 1, "waiting": 3, "active": 4, "healthy": 5}
    return rank.get(device.state, 2)


def plan_lines(rollout: Rollout) -> list[Cell]:
    """The stored plan in words, for somebody who is asked whether to start it."""
    lines = [Cell(f"{formats.short(rollout.release_id)}, generation {rollout.generation}", Tone.STRONG)]
    for wave in rollout.waves:
        names = ", ".join(device.device_id for device in wave.devices[:6])
        more = f" and {len(wave.devices) - 6} more" if len(wave.devices) > 6 else ""
        lines.append(Cell(f"wave {wave_name(wave)}: {_devices(len(wave.devices))}: {names}{more}"))
    if rollout.left_out:
        lines.append(Cell(f"left out: {_devices(len(rollout.left_out))}: {_reasons(rollout.left_out)}", Tone.WARN))
    lines.append(
        Cell(f"each wave must stay healthy for {formats.duration(rollout.soak_s)} before the next", Tone.MUTED)
    )
    return lines


def facts(rollout: Rollout, *, now: float) -> list[tuple[str, Cell]]:
    """One rollout as name and value."""
    lines = [
        ("rollout", Cell(rollout.rollout_id, Tone.STRONG)),
        ("release", Cell(rollout.release_id)),
        ("state", state_badge(rollout.state)),
        ("generation", Cell(str(rollout.generation))),
        ("soak", Cell(formats.duration(rollout.soak_s))),
        ("created", Cell(formats.ago(rollout.created_at, now=now))),
    ]
    if rollout.reason:
        lines.append(("reason", Cell(rollout.reason, Tone.WARN)))
    return lines


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def _reasons(left_out: Sequence[DeviceProgress]) -> str:
    shown = "; ".join(f"{device.device_id}: {device.reason}" for device in left_out[:3])
    return f"{shown}; …" if len(left_out) > 3 else shown
