"""Devices as rows and lines: who lives, what it serves, whether its data moved, and what privacy is left."""

from collections.abc import Sequence
from dataclasses import dataclass

from fleet import formats
from fleet.views.table import NOTHING, Cell, Row, Table, Tone
from shared.api.devices import Device
from shared.lifecycles import ReleaseState
from shared.messages.events import FeatureDrift, LiveState
from shared.privacy import DEVICE, PrivacySpent

_BATTERY_LOW = 0.2
_HOT_C = 80.0
COLUMNS = ("device", "state", "release", "seen", "drift", "privacy left", "note")


@dataclass(frozen=True)
class DeviceSummary:
    """The fleet in figures."""

    total: int = 0
    online: int = 0
    revoked: int = 0
    drifting: int = 0
    off_target: int = 0


def device_table(devices: Sequence[Device], *, now: float) -> Table:
    """One row for each device, in the order given."""
    return Table.of(COLUMNS, (device_row(device, now=now) for device in devices))


def device_row(device: Device, *, now: float) -> Row:
    return Row(
        device.device_id,
        (
            Cell(device.device_id, Tone.STRONG),
            state_badge(device),
            release_badge(device),
            _seen(device, now=now),
            drift_badge(device.drift),
            privacy_badge(device.privacy),
            note(device),
        ),
    )


def summary(devices: Sequence[Device]) -> DeviceSummary:
    """Counts over the devices; revoked ones count only as that."""
    alive = [device for device in devices if not device.is_revoked]
    return DeviceSummary(
        total=len(alive),
        online=sum(device.is_online for device in alive),
        revoked=len(devices) - len(alive),
        drifting=sum(is_drifting(device.drift) for device in alive),
        off_target=sum(bool(device.why_not_at_target) for device in alive),
    )


def state_badge(device: Device) -> Cell:
    """Worst state sorts first."""
    if device.is_revoked:
        return Cell("✕ revoked", Tone.MUTED, order=3)
    if device.is_online:
        return Cell("● online", Tone.GOOD, order=2)
    if device.last_seen_at is None:
        return Cell("○ new", Tone.MUTED, order=1)
    return Cell("○ silent", Tone.WARN, order=0)


def release_badge(device: Device) -> Cell:
    """What it serves, and what it is doing about another one."""
    serving = formats.short(device.release_id, width=16) if device.release_id else "none"
    state = device.release_state
    if state is ReleaseState.FAILED:
        return Cell(f"{serving} ✕ failed", Tone.BAD)
    if state not in (None, ReleaseState.ACTIVE):
        return Cell(f"{serving} ↻ {state}", Tone.BUSY)
    if device.release_id is None:
        return NOTHING
    return Cell(serving, Tone.WARN if device.why_not_at_target else Tone.GOOD)


def drift_badge(drift: Sequence[FeatureDrift]) -> Cell:
    """The feature that is worst against its threshold."""
    worst = max(drift, key=_drift_ratio, default=None)
    if worst is None:
        return NOTHING
    ratio = _drift_ratio(worst)
    text = f"{worst.feature} {worst.psi:.2f}"
    if ratio > 1:
        return Cell(f"▲ {text}", Tone.BAD, order=-ratio)
    return Cell(f"ok {worst.psi:.2f}", Tone.WARN if ratio > 0.7 else Tone.GOOD, order=-ratio)


def is_drifting(drift: Sequence[FeatureDrift]) -> bool:
    return any(feature.psi > feature.threshold for feature in drift)


def privacy_badge(ledgers: Sequence[PrivacySpent]) -> Cell:
    """What is left of the tightest ledger: a bar and epsilon."""
    tightest = min(ledgers, key=privacy_left, default=None)
    if tightest is None:
        return NOTHING
    left = privacy_left(tightest)
    epsilon_left = max(0.0, tightest.epsilon_limit - tightest.epsilon)
    return Cell(f"{meter(left)} ε {epsilon_left:.1f}", privacy_tone(left), order=left)


def privacy_left(ledger: PrivacySpent) -> float:
    """The share of the owner's limit that is not spent, 0 to 1."""
    return min(1.0, max(0.0, 1 - ledger.epsilon / ledger.epsilon_limit))


def privacy_tone(left: float) -> Tone:
    return Tone.BAD if left < 0.1 else Tone.WARN if left < 0.35 else Tone.GOOD


def meter(fraction: float, *, width: int = 4) -> str:
    """A bar on a track, so that an empty one shows its length."""
    return formats.bar(fraction, width=width).replace(" ", "░")


def note(device: Device) -> Cell:
    """Why it is not where it should be, or what went wrong last."""
    if device.is_revoked:
        return Cell("")
    if device.release_state is ReleaseState.FAILED and device.release_error:
        return Cell(device.release_error, Tone.BAD)
    if device.why_not_at_target:
        return Cell(device.why_not_at_target, Tone.WARN)
    if device.events_rejected:
        return Cell(f"{device.events_rejected} refused messages", Tone.WARN)
    return Cell("")


def privacy_table(ledgers: Sequence[PrivacySpent]) -> Table:
    """One row for each data set's ledger."""
    return Table.of(
        ("data set", "left", "spent", "δ", "unit"),
        (
            Row(
                ledger.dataset_id,
                (
                    Cell(_account_name(ledger), Tone.STRONG),
                    Cell(meter(privacy_left(ledger), width=10), privacy_tone(privacy_left(ledger))),
                    Cell(f"ε {ledger.epsilon:.2f} of {ledger.epsilon_limit:g}"),
                    Cell(f"{ledger.delta:g}", Tone.MUTED),
                    Cell(ledger.unit, Tone.MUTED),
                ),
            )
            for ledger in ledgers
        ),
    )


def _account_name(ledger: PrivacySpent) -> str:
    return "all its data" if ledger.dataset_id == DEVICE else formats.short(ledger.dataset_id, width=17)


def drift_table(drift: Sequence[FeatureDrift], *, width: int = 24) -> Table:
    """One row for each feature, worst first; the mark in the bar is the threshold."""
    return Table.of(
        ("feature", "PSI", "against its threshold", "threshold"),
        (
            Row(
                feature.feature,
                (
                    Cell(feature.feature, Tone.STRONG),
                    Cell(f"{feature.psi:.3f}", drift_tone(feature)),
                    Cell(_threshold_bar(feature, width=width), drift_tone(feature)),
                    Cell(f"{feature.threshold:.2f}", Tone.MUTED),
                ),
            )
            for feature in sorted(drift, key=_drift_ratio, reverse=True)
        ),
    )


def drift_tone(feature: FeatureDrift) -> Tone:
    ratio = _drift_ratio(feature)
    return Tone.BAD if ratio > 1 else Tone.WARN if ratio > 0.7 else Tone.GOOD


def facts(device: Device, *, now: float) -> list[tuple[str, Cell]]:
    """Everything else about one device, as name and value."""
    tasks = ", ".join(f"{name} {version}" for name, version in sorted(device.tasks.items()))
    tags = ", ".join(f"{name}={value}" for name, value in sorted(device.tags.items()))
    expires = formats.until(device.certificate_expires_at, now=now)
    return [
        ("state", state_badge(device)),
        ("last seen", Cell(formats.ago(device.last_seen_at, now=now), _seen_tone(device))),
        ("enrolled", Cell(formats.ago(device.enrolled_at, now=now))),
        ("certificate expires", Cell(expires or "–", Tone.BAD if expires == "expired" else Tone.PLAIN)),
        ("tags", Cell(tags or "–")),
        ("tasks", Cell(tasks or "–")),
        ("agent", Cell(device.agent_version or "–")),
        ("runtime", Cell(f"ONNX Runtime {device.runtime}, opset {device.opset_max}" if device.runtime else "–")),
        ("memory", Cell(formats.size(device.memory_rss_bytes) if device.memory_rss_bytes else "–")),
        ("serves at", Cell(device.serving_url or "–")),
        ("refused messages", Cell(str(device.events_rejected), Tone.WARN if device.events_rejected else Tone.PLAIN)),
        *([("privacy ledger", Cell(device.ledger_problem, Tone.BAD))] if device.ledger_problem else []),
        *live_facts(device.live),
    ]


def live_facts(live: LiveState) -> list[tuple[str, Cell]]:
    """How the device was at its newest heartbeat; a line for each thing that its system tells."""
    lines = []
    if live.battery is not None:
        tone = Tone.WARN if live.battery < _BATTERY_LOW and not live.is_charging else Tone.PLAIN
        lines.append(("battery", Cell(f"{live.battery:.0%}{', on power' if live.is_charging else ''}", tone)))
    if live.network:
        lines.append(("network", Cell(live.network)))
    if live.temperature_c is not None:
        lines.append(("temperature", Cell(f"{live.temperature_c:.0f} °C", _heat_tone(live.temperature_c))))
    if live.memory_free_bytes is not None:
        lines.append(("memory free", Cell(formats.size(live.memory_free_bytes))))
    if live.data_age_s is not None:
        lines.append(("data changed", Cell(f"{formats.duration(live.data_age_s)} before")))
    return lines


def _heat_tone(temperature_c: float) -> Tone:
    return Tone.WARN if temperature_c >= _HOT_C else Tone.PLAIN


def release_facts(device: Device) -> list[tuple[str, Cell]]:
    """What it serves, what it should serve, and what stands between."""
    state = device.release_state
    lines = [
        ("serves", Cell(device.release_id or "nothing yet", Tone.STRONG if device.release_id else Tone.MUTED)),
        ("should serve", Cell(device.desired_release_id or "–")),
        ("generation", Cell(str(device.desired_generation))),
        ("state", Cell(state.value, release_tone(state)) if state else NOTHING),
    ]
    if device.why_not_at_target:
        lines.append(("not there because", Cell(device.why_not_at_target, Tone.WARN)))
    if device.release_error:
        lines.append(("error", Cell(device.release_error, Tone.BAD)))
    return lines


def release_tone(state: ReleaseState) -> Tone:
    match state:
        case ReleaseState.ACTIVE:
            return Tone.GOOD
        case ReleaseState.FAILED:
            return Tone.BAD
        case _:
            return Tone.BUSY


def _drift_ratio(feature: FeatureDrift) -> float:
    return feature.psi / feature.threshold


def _threshold_bar(feature: FeatureDrift, *, width: int) -> str:
    # The whole bar is twice the threshold, so that the mark stands in the middle of every row.
    bar = formats.bar(_drift_ratio(feature) / 2, width=width)
    middle = width // 2
    return f"{bar[:middle]}│{bar[middle:]}"


def _seen(device: Device, *, now: float) -> Cell:
    # The column says `seen`: `ago` in each row would only take room.
    text = formats.ago(device.last_seen_at, now=now).removesuffix(" ago")
    return Cell(text, _seen_tone(device), order=-(device.last_seen_at or 0))


def _seen_tone(device: Device) -> Tone:
    return Tone.PLAIN if device.is_online else Tone.MUTED
