"""A fleet as a coordinator would tell it, at one moment: every state that an operator may meet, as API values."""

from shared.api.alerts import Alert, ServingWindow
from shared.api.campaigns import Campaign, DeviceOutcome, FlowerCampaignCreate, Round
from shared.api.devices import Device
from shared.api.jobs import Job
from shared.api.models import ModelVersion
from shared.api.privacy import CampaignSpending, PrivacyAccount
from shared.api.releases import Release, ReleaseStage
from shared.api.rollouts import DeviceProgress, Rollout, Wave
from shared.ids import Digest
from shared.lifecycles import JobState, ReleaseState, RolloutState, VersionStage
from shared.manifests import Manifest, TensorSchema
from shared.messages.base import ObjectRef
from shared.messages.events import FeatureDrift
from shared.privacy import PrivacySpec, PrivacySpent

NOW = 1_780_000_000.0
FEATURES = ("accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z")
OLD_RELEASE = "0197c2a0-0000-7000-8000-0000a41b9c02"
NEW_RELEASE = "0197c2a0-0000-7000-8000-0000e7d30f51"
DRAFT_RELEASE = "0197c2a0-0000-7000-8000-00006b22c8aa"
MODEL = "0197c2a0-0000-7000-8000-00000c0ffee1"
CAMPAIGN = "0197c2a0-0000-7000-8000-00005ca1ab1e"
ROLLOUT = "0197c2a0-0000-7000-8000-0000b0a710ad"
ALERT = "0197c2a0-0000-7000-8000-0000a1e27001"
SITES = ("berlin", "lyon", "porto")


def drift(*, worst: float = 0.06) -> list[FeatureDrift]:
    """All features; the fourth is the worst."""
    shares = (0.35, 0.5, 0.42, 1.0, 0.3, 0.6)
    return [
        FeatureDrift(feature=name, psi=round(worst * share, 4), threshold=0.25)
        for name, share in zip(FEATURES, shares, strict=True)
    ]


def spent(epsilon: float) -> PrivacySpent:
    return PrivacySpent(epsilon=epsilon, delta=1e-5, epsilon_limit=8, dataset_id="physio-recordings", unit="recording")


def accounts(device_id: str | None = None) -> list[PrivacyAccount]:
    """Of two devices: one in order; one whose data set took work it said nothing of, and that hides as a whole."""
    of_data = {"delta": 1e-5, "dataset_id": "physio-recordings", "unit": "recording", "epsilon_limit": 8}
    other = "0197c2a0-0000-7000-8000-0000000b5e7d"
    spent_on = [
        CampaignSpending(campaign_id=CAMPAIGN, times=5, epsilon=4.5),
        CampaignSpending(campaign_id=other, times=1, epsilon=1.75),
    ]
    found = [
        PrivacyAccount(device_id="wrist-04", epsilon=5.0, epsilon_asked=5.0, epsilon_ledger=5.0, epsilon_left=3.0,
                       campaigns=spent_on, **of_data),
        PrivacyAccount(device_id="wrist-10", epsilon=7.6, epsilon_asked=7.6, epsilon_ledger=7.1, epsilon_left=0.4,
                       campaigns=spent_on[:1], **of_data),
        PrivacyAccount(device_id="wrist-10", epsilon=2.0, epsilon_asked=1.5, epsilon_ledger=2.0, epsilon_left=None,
                       delta=1e-5, dataset_id="device", unit="device", campaigns=spent_on[1:]),
    ]  # fmt: skip
    return [account for account in found if device_id in (None, account.device_id)]


def device(number: int, **changes: object) -> Device:
    """A healthy device that serves the new release, with the changes."""
    values: dict[str, object] = {
        "device_id": f"wrist-{number:02d}",
        "tags": {"site": SITES[number % 3], "arm": "left" if number % 2 else "right"},
        "enrolled_at": NOW - 86_400 * 12 - number * 3600,
        "last_seen_at": NOW - 1.5 - number % 4,
        "is_online": True,
        "agent_version": "0.1.0",
        "tasks": {"physio": "1"},
        "runtime": "1.32.0",
        "opset_max": 23,
        "memory_rss_bytes": 97_400_000 + number * 310_000,
        "serving_url": f"http://127.0.0.1:{8600 + number}",
        "release_id": NEW_RELEASE,
        "release_state": ReleaseState.ACTIVE,
        "desired_release_id": NEW_RELEASE,
        "desired_generation": 4,
        "drift": drift(worst=0.03 + number % 5 * 0.015),
        "privacy": [spent(2.4 + number % 6 * 0.5)],
        "certificate_expires_at": NOW + 86_400 * (30 + number),
    }
    return Device.model_validate(values | changes)


def devices() -> list[Device]:
    """Newest first, as the coordinator lists them."""
    waiting = {"release_id": OLD_RELEASE, "why_not_at_target": "Wave 2 has not asked it yet"}
    found = [
        *(device(number) for number in range(1, 5)),
        device(5, drift=drift(worst=0.61)),
        device(6, release_id=OLD_RELEASE, release_state=ReleaseState.DOWNLOADING,
               why_not_at_target="Downloading, 62 % of 21.3 kB"),
        device(7, release_id=OLD_RELEASE, release_state=ReleaseState.TESTING, why_not_at_target="Testing on samples"),
        device(8, release_id=OLD_RELEASE, release_state=ReleaseState.FAILED,
               release_error="Expected opset 23 or older, got 24", why_not_at_target="The release failed on it"),
        device(9, is_online=False, last_seen_at=NOW - 460, **waiting),
        device(10, privacy=[spent(7.6)], **waiting),
        device(11, is_online=False, last_seen_at=None, release_id=None, release_state=None, drift=[], privacy=[],
               desired_release_id=None, runtime="", tasks={}),
        device(12, is_revoked=True, is_online=False, last_seen_at=NOW - 86_400 * 3),
    ]  # fmt: skip
    return list(reversed(found))


def campaign(*, rounds_done: int = 5, state: JobState = JobState.RUNNING) -> Campaign:
    """Eight rounds with noise, of which the sixth is under way."""
    accuracies = (0.587, 0.634, 0.662, 0.689, 0.703, 0.712, 0.719, 0.724)
    history = [_round(number, accuracies[number - 1]) for number in range(1, rounds_done + 1)]
    if state is JobState.RUNNING:
        history.append(_round_under_way(rounds_done + 1))
    return Campaign(
        campaign_id=CAMPAIGN,
        task="physio",
        state=state,
        strategy="fedavg",
        rounds=8,
        rounds_done=rounds_done,
        privacy=PrivacySpec(
            epsilon=8,
            delta=1e-5,
            noise_multiplier=1.12,
            max_grad_norm=1,
            sampling_rate=0.25,
            steps_per_round=24,
            rounds=8,
        ),
        start_model_version_id=MODEL,
        start_accuracy=0.541,
        created_at=NOW - 74,
        finished_at=None if state is JobState.RUNNING else NOW - 4,
        history=history,
    )


def flower_campaign(asked: FlowerCampaignCreate) -> Campaign:
    """What the coordinator makes of a Flower app: under way, with its second batch of messages out."""
    ours = campaign(rounds_done=1)
    return ours.model_copy(
        update={
            "task": f"flower:{asked.flower.app}",
            "strategy": "flower-app",
            "privacy": None,
            "privacy_spent": [],
            "flower": asked.flower,
            "rounds": int(asked.flower.config.get("num-server-rounds", 0)),
            "start_model_version_id": "",
            "start_accuracy": None,
            "selection": asked.selection,
            "history": [
                Round(round=1, message_type="train of round 1", state="done", started_at=NOW - 9, finished_at=NOW - 5),
                Round(round=2, message_type="evaluate of round 1", state="waiting", started_at=NOW - 5),
            ],
        }
    )


def _round(number: int, accuracy: float) -> Round:
    return Round(
        round=number,
        state="done",
        started_at=NOW - 74 + (number - 1) * 12,
        finished_at=NOW - 74 + number * 12 - 1.4,
        accuracy=accuracy,
        loss=round(1.9 - accuracy, 3),
        bytes_down=9 * 51_200,
        bytes_up=9 * 51_300,
        devices=[_outcome(index) for index in range(1, 10)],
    )


def _round_under_way(number: int) -> Round:
    outcomes = [
        *(_outcome(index) for index in (1, 2, 3, 5)),
        DeviceOutcome(device_id="wrist-04", status="waiting"),
        DeviceOutcome(device_id="wrist-06", status="waiting"),
        DeviceOutcome(device_id="wrist-07", status="failed", reason="The training process was killed: out of memory"),
        DeviceOutcome(
            device_id="wrist-10", status="refused", reason="The ledger has ε 0.4 left of 8, this round costs 0.6"
        ),
    ]
    excluded = {"wrist-09": "silent for 7 min", "wrist-11": "has no task physio"}
    return Round(round=number, state="waiting", started_at=NOW - 6.2, bytes_down=8 * 51_200, bytes_up=4 * 51_300,
                 devices=outcomes, excluded=excluded)  # fmt: skip


def _outcome(index: int) -> DeviceOutcome:
    return DeviceOutcome(
        device_id=f"wrist-{index:02d}",
        status="done",
        examples=210 + index * 11,
        update_bytes=51_300,
        duration_s=3.1 + index * 0.2,
        privacy=spent(2.4 + index % 6 * 0.5),
    )


def rollout(*, state: RolloutState = RolloutState.RUNNING) -> Rollout:
    """A healthy canary, and a second wave on its way."""
    progress = DeviceProgress
    second = [
        *(progress(device_id=f"wrist-{number:02d}", state="healthy") for number in (3, 4, 5)),
        progress(device_id="wrist-06", state="downloading", reason="62 % of 21.3 kB"),
        progress(device_id="wrist-07", state="testing"),
        progress(device_id="wrist-08", state="failed", reason="Expected opset 23 or older, got 24"),
        progress(device_id="wrist-09", state="waiting", reason="silent for 7 min"),
        progress(device_id="wrist-10", state="asked"),
    ]
    return Rollout(
        rollout_id=ROLLOUT,
        release_id=NEW_RELEASE,
        state=state,
        reason="1 of 8 devices failed in wave 2, more than 0" if state is RolloutState.HALTED else "",
        generation=4,
        created_at=NOW - 48,
        soak_s=5,
        waves=[
            Wave(number=1, state="healthy", started_at=NOW - 47, finished_at=NOW - 31,
                 devices=[progress(device_id=f"wrist-{number:02d}", state="healthy") for number in (1, 2)]),
            Wave(number=2, state="moving", started_at=NOW - 31, devices=second),
        ],
        left_out=[progress(device_id="wrist-11", state="left_out", reason="has no task physio")],
    )  # fmt: skip


def planned_rollout() -> Rollout:
    """The same plan before anything moved."""
    plan = rollout(state=RolloutState.PLANNED)
    waves = [
        Wave(
            number=wave.number,
            state="waiting",
            devices=[DeviceProgress(device_id=moved.device_id, state="waiting") for moved in wave.devices],
        )
        for wave in plan.waves
    ]
    return plan.model_copy(update={"waves": waves})


def alerts() -> list[Alert]:
    return [
        Alert(alert_id=ALERT, kind="drift", severity="critical", device_id="wrist-05", subject="gyro_x",
              message="gyro_x moved away from the release's reference profile", value=0.61, threshold=0.25,
              opened_at=NOW - 95, last_seen_at=NOW - 5, count=18),
        Alert(alert_id=ALERT[:-1] + "2", kind="release_failed", severity="warning", device_id="wrist-08",
              subject=NEW_RELEASE, message="Expected opset 23 or older, got 24",
              opened_at=NOW - 22, last_seen_at=NOW - 22),
        Alert(alert_id=ALERT[:-1] + "3", kind="device_silent", severity="warning", device_id="wrist-09",
              message="Silent for 7 min", value=460, threshold=30, opened_at=NOW - 430, last_seen_at=NOW - 8, count=42),
        Alert(alert_id=ALERT[:-1] + "4", kind="malformed_events", severity="warning", device_id="wrist-02",
              message="3 events were not what they should be", opened_at=NOW - 9000, last_seen_at=NOW - 8000,
              closed_at=NOW - 7000, count=3),
    ]  # fmt: skip


def serving_windows(device_id: str) -> list[ServingWindow]:
    """Forty windows, newest first."""
    return [
        ServingWindow(
            device_id=device_id,
            received_at=NOW - 5 - 10 * age,
            release_id=NEW_RELEASE if age < 18 else OLD_RELEASE,
            window_s=10,
            requests=120 + age * 37 % 41,
            examples=(120 + age * 37 % 41) * 2,
            errors=0,
            latency_p50_ms=0.62 + age * 13 % 7 * 0.02,
            latency_p99_ms=1.4 + age * 29 % 11 * 0.11,
            psi={"gyro_x": 0.1},
        )
        for age in range(40)
    ]


def models() -> list[ModelVersion]:
    return [
        ModelVersion(
            model_version_id=MODEL,
            task="physio",
            task_version="1",
            stage=VersionStage.APPROVED,
            weights=_object("a", 51_200),
            metrics={"validation_accuracy": 0.541, "unseen_accuracy": 0.52},
            lineage={"job_id": "0197c2a0-0000-7000-8000-000000000b0b"},
            created_at=NOW - 400,
        )
    ]


def releases() -> list[Release]:
    return [
        _release(DRAFT_RELEASE, ReleaseStage.DRAFT, age_s=30),
        _release(NEW_RELEASE, ReleaseStage.PUBLISHED, age_s=300),
        _release(OLD_RELEASE, ReleaseStage.PUBLISHED, age_s=90_000),
    ]


def _release(release_id: str, stage: ReleaseStage, *, age_s: float) -> Release:
    manifest = Manifest(
        release_id=release_id,
        task="physio",
        task_version="1",
        opset=18,
        ir_version=10,
        inputs=[TensorSchema(name="window", datatype="FP32", shape=[-1, 6, 100])],
        outputs=[TensorSchema(name="logits", datatype="FP32", shape=[-1, 7])],
        classes=["pendulum", "abduction", "flexion", "internal", "external", "trapezius", "row"],
        files={"model.onnx": _object("b", 21_300), "samples.safetensors": _object("c", 40_000)},
        self_test_tolerance=0.02,
        metrics={"int8_validation_accuracy": 0.715, "fp32_validation_accuracy": 0.719,
                 "int8_bytes": 21_300, "fp32_bytes": 53_900},
        lineage={"campaign_id": CAMPAIGN},
        created_at=NOW - age_s,
    )  # fmt: skip
    published = NOW - age_s + 20 if stage is ReleaseStage.PUBLISHED else None
    return Release(release_id=release_id, task="physio", stage=stage, model_version_id=MODEL, manifest=manifest,
                   created_at=NOW - age_s, published_at=published)  # fmt: skip


def jobs() -> list[Job]:
    return [
        Job(
            job_id=CAMPAIGN[:-1] + "f",
            kind="campaign",
            state=JobState.RUNNING,
            created_at=NOW - 74,
            started_at=NOW - 73,
        )
    ]


def _object(letter: str, size_bytes: int) -> ObjectRef:
    return ObjectRef(digest=Digest(letter * 64), size_bytes=size_bytes)
