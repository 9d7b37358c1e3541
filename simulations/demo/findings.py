"""From what the steps returned to the summary: figures are picked and divided here, and nowhere rounded up."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.api.alerts import Alert
from shared.api.campaigns import Campaign
from shared.api.devices import Device
from shared.api.models import ModelVersion
from shared.api.releases import Release
from shared.api.rollouts import Rollout
from simulations.demo.comparison import Comparison
from simulations.demo.processes import resident_mib
from simulations.demo.stage import Stage
from simulations.demo.summary import Accuracies, DeviceFigures, Latency, Summary, WaveFigures


@dataclass(frozen=True)
class Findings:
    """Everything that the run left behind."""

    base: ModelVersion
    federated: ModelVersion
    campaign: Campaign
    release: Release
    rollout: Rollout
    served_accuracy: float
    latency: Latency
    alerts: list[Alert]
    devices: list[Device]
    disturbed: tuple[str, str] | None
    """Device and feature whose sensor was broken, if the task has one to break."""
    comparison: Comparison


def summarise(stage: Stage, found: Findings) -> Summary:
    """The summary of a run whose agents still live: their memory is measured here."""
    campaign, metrics = found.campaign, found.release.manifest.metrics
    device_id, feature = found.disturbed or (None, None)
    return Summary(
        task=stage.task.name,
        devices=_device_figures(stage, found.devices),
        rounds=campaign.rounds_done,
        accuracy=_accuracies(found),
        validation_accuracy_per_round=_accuracy_by_round(campaign),
        epsilon_asked=stage.epsilon,
        delta=campaign.privacy.delta if campaign.privacy else None,
        privacy_unit=stage.task.privacy_unit,
        bytes_down_per_round=sum(r.bytes_down for r in campaign.history) / campaign.rounds_done,
        bytes_up_per_round=sum(r.bytes_up for r in campaign.history) / campaign.rounds_done,
        fp32_bytes=int(metrics["fp32_bytes"]),
        int8_bytes=int(metrics["int8_bytes"]),
        latency=found.latency,
        waves=_waves(found.rollout),
        alerts=found.alerts,
        drift={d.device_id: {f.feature: f.psi / f.threshold for f in d.drift} for d in found.devices},
        disturbed_device=device_id,
        disturbed_feature=feature,
        step_seconds=stage.step_seconds,
        data_dir=str(stage.data_dir),
        picture=str(stage.data_dir / "demo.png"),
    )


def _accuracies(found: Findings) -> Accuracies:
    return Accuracies(
        base=found.base.metrics["unseen_accuracy"],
        federated=found.federated.metrics["unseen_accuracy"],
        int8=found.release.manifest.metrics["int8_unseen_accuracy"],
        served=found.served_accuracy,
        without_noise=found.comparison.without_noise,
        in_one_place=found.comparison.in_one_place,
    )


def _waves(rollout: Rollout) -> list[WaveFigures]:
    return [
        WaveFigures(
            number=wave.number,
            devices=[device.device_id for device in wave.devices],
            state=wave.state,
            seconds=(wave.finished_at or 0) - (wave.started_at or 0),
        )
        for wave in rollout.waves
    ]


def _device_figures(stage: Stage, devices: Sequence[Device]) -> list[DeviceFigures]:
    slices = stage.task.device_slices()
    figures = []
    for demo, device in zip(stage.devices, devices, strict=True):
        spent = device.privacy[0] if device.privacy else None
        figures.append(
            DeviceFigures(
                device_id=demo.device_id,
                slices=list(demo.slices),
                units=sum(len(set(slices[name].train.units.tolist())) for name in demo.slices),
                epsilon=spent.epsilon if spent else None,
                epsilon_limit=spent.epsilon_limit if spent else None,
                agent_rss_mib=round(resident_mib(stage.processes.pid(demo.device_id)), 1),
                release_state=str(device.release_state),
            )
        )
    return figures


def _accuracy_by_round(campaign: Campaign) -> list[float]:
    rounds = sorted(campaign.history, key=lambda r: r.round)
    return [a for a in (campaign.start_accuracy, *(r.accuracy for r in rounds)) if a is not None]
