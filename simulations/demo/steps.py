"""The steps of the demonstration, in order. Each calls the product as its users do: commands and the HTTP API."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fleet import calls
from fleet.signing import sign_targets
from fleet.waiting import wait_for, wait_for_campaign, wait_for_job
from shared.api.alerts import Alert
from shared.api.campaigns import Campaign, CampaignCreate, PrivacyBudget
from shared.api.devices import Device
from shared.api.enrolment import TokenCreate
from shared.api.jobs import TrainingCreate
from shared.api.models import ModelVersion
from shared.api.releases import Release, ReleaseCreate, SignedTargets
from shared.api.rollouts import Rollout, RolloutCreate
from shared.errors import FleetlearnError
from shared.lifecycles import RolloutState
from shared.tasks.task import Examples, Role
from simulations.demo.disturbance import Disturbance
from simulations.demo.inference import InferenceClient
from simulations.demo.processes import run_once
from simulations.demo.stage import PATIENCE, DemoDevice, Stage
from simulations.demo.summary import Latency
from simulations.demo.traffic import Traffic

REPORT_WINDOW_S = 2
_LATENCY_REQUESTS = 300
_ALERT_TIMEOUT_S = 60


class FalseAlertError(FleetlearnError):
    """A drift alert where nothing had changed."""

    code = "false_alert"


def enrol_devices(stage: Stage) -> None:
    """Gives each device its own subjects' data, a one-time token and a certificate, and starts its agent."""
    with stage.step("Enrol the devices") as bar:
        for number, device in enumerate(stage.devices, 1):
            stage.task.write_device_data(device.data_dir, device.slices)
            request = TokenCreate(device_id=device.device_id, tags={"site": "demo"})
            token = stage.client.send(calls.create_token(request)).token
            run_once(
                ["agent", "enrol", "--state", device.state_dir, "--device-id", device.device_id, "--token", token],
                timeout_s=60,
            )
            _start_agent(stage, device)
            bar.show(number / (len(stage.devices) + 1), f"{device.device_id} has its certificate")
        bar.show(0.95, "waiting for every heartbeat")
        stage.processes.wait_until(
            "every device online", lambda: len(_online(stage)) == len(stage.devices), timeout_s=60
        )
        bar.show(1, f"{len(stage.devices)} devices online")


def train_base(stage: Stage) -> ModelVersion:
    """Trains the task's base model centrally, on public data."""
    with stage.step("Train the base model") as bar:
        job = stage.client.send(calls.start_training(TrainingCreate(task=stage.task.name)))
        done = wait_for_job(
            stage.client,
            job.job_id,
            on_progress=lambda job: bar.show(job.progress.get("fraction", 0), job.progress.get("step", "")),
            patience=PATIENCE,
        )
        model = stage.client.send(calls.model(done.result["model_version_id"]))
        bar.show(1, f"{model.metrics['unseen_accuracy']:.3f} on unseen data")
        return model


def federate(stage: Stage, base: ModelVersion) -> Campaign:
    """Runs the campaign: every device trains on its own data, within its own privacy limit."""
    with stage.step("Federated rounds") as bar:
        request = CampaignCreate(
            task=stage.task.name,
            model_version_id=base.model_version_id,
            rounds=stage.rounds,
            privacy=None if stage.epsilon is None else PrivacyBudget(epsilon=stage.epsilon),
            devices=[device.device_id for device in stage.devices],
            quorum=min(2, len(stage.devices)),
        )
        campaign = stage.client.send(calls.create_campaign(request))

        def show(campaign: Campaign) -> None:
            accuracies = [r.accuracy for r in campaign.history if r.accuracy is not None]
            note = f"round {campaign.rounds_done} of {campaign.rounds}"
            note += f", validation {accuracies[-1]:.3f}" if accuracies else ", devices load their training"
            bar.show(campaign.rounds_done / campaign.rounds, note)

        return wait_for_campaign(stage.client, campaign.campaign_id, on_progress=show, patience=PATIENCE)


def package(stage: Stage, model_version_id: str) -> Release:
    """Exports, quantizes and gates the model, then signs the release with the operator's key."""
    with stage.step("Package, sign and publish") as bar:
        job = stage.client.send(calls.package_release(ReleaseCreate(model_version_id=model_version_id)))
        done = wait_for_job(
            stage.client,
            job.job_id,
            on_progress=lambda job: bar.show(0.9 * job.progress.get("fraction", 0), job.progress.get("step", "")),
            patience=PATIENCE,
        )
        release_id = done.result["release_id"]
        request = stage.client.send(calls.request_signing(release_id))
        key_file = stage.cloud_dir / "offline-keys" / "targets.pem"
        signed = sign_targets(request.targets_metadata, targets_key_file=key_file)
        release = stage.client.send(calls.publish_release(release_id, SignedTargets(targets_metadata=signed)))
        metrics = release.manifest.metrics
        bar.show(1, f"int8 {metrics['int8_bytes'] / 1e3:.1f} kB, fp32 {metrics['fp32_bytes'] / 1e3:.1f} kB")
        return release


def roll_out(stage: Stage, release: Release) -> Rollout:
    """Two waves: the canary, and the rest once the canary is healthy."""
    with stage.step("Roll out in two waves") as bar:
        request = RolloutCreate(
            release_id=release.release_id,
            devices=[device.device_id for device in stage.devices],
            wave_fractions=[1 / len(stage.devices), 1.0] if len(stage.devices) > 1 else [1.0],
            soak_s=3,
            wave_timeout_s=120,
        )
        planned = stage.client.send(calls.plan_rollout(request))
        stage.client.send(calls.start_rollout(planned.rollout_id))

        def show(rollout: Rollout) -> None:
            progress = [device for wave in rollout.waves for device in wave.devices]
            healthy = sum(device.state == "healthy" for device in progress)
            waves = ", ".join(f"wave {wave.number} {wave.state}" for wave in rollout.waves)
            bar.show(healthy / max(1, len(progress)), waves)

        return wait_for(
            stage.client,
            calls.rollout(planned.rollout_id),
            is_over=lambda rollout: rollout.state not in (RolloutState.PLANNED, RolloutState.RUNNING),
            on_progress=show,
            patience=PATIENCE,
        )


def serving_urls(stage: Stage) -> Mapping[str, str]:
    """Where each device's endpoint listens, as the device itself wrote it down."""
    return {
        device.device_id: str(json.loads((device.state_dir / "serving.json").read_text())["url"])
        for device in stage.devices
    }


def infer(stage: Stage) -> tuple[float, Latency]:
    """Accuracy of one device's answers on unseen data, and its latency, with JSON and with binary tensors."""
    with stage.step("Ask a device") as bar:
        examples = stage.task.central_data(Role.UNSEEN)
        url = next(iter(serving_urls(stage).values()))
        with InferenceClient(url, model=stage.task.name, schema=stage.task.schema) as client:
            accuracy = _accuracy(client, examples)
            bar.show(0.4, f"{accuracy:.3f} right on unseen data")
            chosen = np.random.default_rng(0).integers(0, len(examples), _LATENCY_REQUESTS)
            by_json = [client.infer_json(examples.inputs[i : i + 1]).latency_ms for i in chosen]
            by_binary = [client.infer_binary(examples.inputs[i : i + 1]).latency_ms for i in chosen]
        (json_p50, json_p99), (binary_p50, binary_p99) = (np.percentile(ms, (50, 99)) for ms in (by_json, by_binary))
        return accuracy, Latency(
            json_p50_ms=json_p50, json_p99_ms=json_p99, binary_p50_ms=binary_p50, binary_p99_ms=binary_p99
        )


def watch_drift(stage: Stage, *, device_id: str, disturbance: Disturbance | None) -> tuple[list[Alert], list[Device]]:
    """Normal traffic everywhere, then one broken sensor: the alert must come for that device, and for no other.

    Without a disturbance that a feature shows, normal traffic is all there is, and no alert may come.
    """
    with stage.step("Watch for drift") as bar:
        traffic = Traffic(
            serving_urls(stage),
            model=stage.task.name,
            schema=stage.task.schema,
            examples=stage.task.central_data(Role.UNSEEN),
            seed=7,
        )
        with traffic:
            bar.show(0.1, "normal traffic everywhere")
            stage.processes.wait_until(
                "drift figures of every device",
                lambda: traffic.is_flowing() and all(device.drift for device in _demo_devices(stage)),
                timeout_s=_ALERT_TIMEOUT_S,
            )
            time.sleep(2 * REPORT_WINDOW_S)  # two more windows of normal traffic: a false alert would come now
            _refuse_alerts(stage, but_for="")
            if disturbance is None:
                bar.show(1, "no alert; no feature of this task would show a broken sensor")
                return [], _demo_devices(stage)
            traffic.disturb(device_id, disturbance)
            bar.show(0.5, f"{disturbance.feature} of {device_id} now reads nothing")
            stage.processes.wait_until(
                f"a drift alert for {disturbance.feature} of {device_id}",
                lambda: traffic.is_flowing() and _has_alert(stage, device_id, disturbance.feature),
                timeout_s=_ALERT_TIMEOUT_S,
            )
            time.sleep(2 * REPORT_WINDOW_S)  # time for the others to raise a false one
        _refuse_alerts(stage, but_for=device_id)
        alerts = _drift_alerts(stage)
        bar.show(1, f"{device_id} alone: {', '.join(alert.subject for alert in alerts)}")
        return alerts, _demo_devices(stage)


def _start_agent(stage: Stage, device: DemoDevice) -> None:
    folders: list[str | Path] = ["--state", device.state_dir, "--data", device.data_dir]
    pace = ["--heartbeat-s", "1", "--report-window-s", str(REPORT_WINDOW_S)]
    stage.processes.start(device.device_id, ["agent", "run", *folders, "--serve-port", "0", *pace])


def _demo_devices(stage: Stage) -> list[Device]:
    return [stage.client.send(calls.device(device.device_id)) for device in stage.devices]


def _online(stage: Stage) -> list[Device]:
    return [device for device in stage.client.send(calls.devices()) if device.is_online]


def _drift_alerts(stage: Stage) -> list[Alert]:
    return [alert for alert in stage.client.send(calls.alerts(only_open=True)) if alert.kind == "drift"]


def _has_alert(stage: Stage, device_id: str, feature: str) -> bool:
    return any(alert.device_id == device_id and alert.subject == feature for alert in _drift_alerts(stage))


def _refuse_alerts(stage: Stage, *, but_for: str) -> None:
    alerts = [alert for alert in _drift_alerts(stage) if alert.device_id != but_for]
    if alerts:
        found = ", ".join(f"{alert.device_id} {alert.subject}" for alert in alerts)
        raise FalseAlertError(f"Expected no drift alert under normal traffic, got {len(alerts)}: {found}")


def _accuracy(client: InferenceClient, examples: Examples) -> float:
    batches = np.array_split(np.arange(len(examples)), max(1, len(examples) // 32))
    right = sum(
        int((client.infer_binary(examples.inputs[batch]).outputs.argmax(axis=1) == examples.labels[batch]).sum())
        for batch in batches
    )
    return right / len(examples)
