"""The demonstration as one picture: accuracy by round, privacy spent, drift."""

from pathlib import Path

from simulations.demo.summary import Summary

_INK, _ACCENT, _ALERT, _QUIET = "#22313f", "#1f8a8a", "#d1495b", "#b8c4cc"


def draw(summary: Summary, path: Path) -> None:
    """Writes a PNG. matplotlib is loaded here: it costs half a second that nobody else should pay."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.color": _INK}):
        figure, (accuracy, privacy, drift) = plt.subplots(
            1, 3, figsize=(13, 4.4), width_ratios=(1.25, 1, 1.25), layout="constrained"
        )
        _draw_accuracy(summary, accuracy)
        _draw_privacy(summary, privacy)
        _draw_drift(summary, drift)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _draw_accuracy(summary: Summary, axes) -> None:  # type: ignore[no-untyped-def]  # matplotlib is untyped here
    values = summary.validation_accuracy_per_round
    axes.plot(range(len(values)), values, color=_ACCENT, marker="o", markersize=4, label="federated, validation data")
    unseen = summary.accuracy
    axes.axhline(unseen.base, color=_QUIET, linestyle="--", label=f"base, unseen data {unseen.base:.3f}")
    axes.axhline(unseen.int8, color=_INK, linestyle=":", label=f"int8 release, unseen data {unseen.int8:.3f}")
    axes.set(title="Accuracy by round", xlabel="round (0: the base model)", ylabel="accuracy")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _draw_privacy(summary: Summary, axes) -> None:  # type: ignore[no-untyped-def]  # matplotlib is untyped here
    names = [device.device_id for device in summary.devices]
    axes.barh(names, [device.epsilon or 0 for device in summary.devices], color=_ACCENT, height=0.55)
    limits = [device.epsilon_limit for device in summary.devices if device.epsilon_limit is not None]
    if limits:
        axes.axvline(min(limits), color=_ALERT, linestyle="--", label="the device's own limit")
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    axes.invert_yaxis()
    axes.set(title=f"Privacy spent, per {summary.privacy_unit}", xlabel="epsilon")


def _draw_drift(summary: Summary, axes) -> None:  # type: ignore[no-untyped-def]  # matplotlib is untyped here
    devices = sorted(summary.drift)
    features = sorted({feature for figures in summary.drift.values() for feature in figures})
    if not features:
        return
    grid = [[summary.drift[device].get(feature, 0.0) for feature in features] for device in devices]
    image = axes.imshow(grid, cmap="YlOrRd", vmin=0, vmax=2, aspect="auto")
    axes.set_xticks(range(len(features)), features, rotation=45, ha="right")
    axes.set_yticks(range(len(devices)), devices)
    for row, figures in enumerate(grid):
        for column, value in enumerate(figures):
            ink = "white" if value > 1.2 else _INK
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=ink)
    broke = (
        f" after {summary.disturbed_feature} broke on {summary.disturbed_device}" if summary.disturbed_device else ""
    )
    axes.set(title=f"Drift{broke}")
    axes.figure.colorbar(image, ax=axes, label="PSI / threshold (above 1: alert)")
