"""Rollouts as operators see them."""

from sqlmodel import Session

from cloud.rollouts import store
from cloud.rollouts.gates import wave_state
from cloud.rollouts.models import RolloutRow
from cloud.rollouts.observations import observe
from cloud.rollouts.values import DeviceProgress, DeviceStep, Observation, Progress
from shared.api import rollouts as api
from shared.ids import DeviceId
from shared.lifecycles import RolloutState

_UNKNOWN = Observation()


def view(session: Session, row: RolloutRow) -> api.Rollout:
    """A rollout with its waves and devices."""
    progress = store.load_progress(session, row)
    observed = observe(session, progress, release_id=row.release_id)
    return api.Rollout(
        rollout_id=row.rollout_id,
        release_id=row.release_id,
        state=RolloutState(row.state),
        reason=row.reason,
        generation=row.generation,
        created_at=row.created_at,
        finished_at=row.finished_at,
        soak_s=row.policy["soak_s"],
        waves=[
            _wave(progress, observed, number, release_id=row.release_id) for number in range(1, len(progress.waves) + 1)
        ],
        left_out=[
            api.DeviceProgress(device_id=device, state=DeviceStep.LEFT_OUT, reason=reason)
            for device, reason in row.left_out
        ],
    )


def device_state(progress: DeviceProgress, seen: Observation) -> str:
    """One word for how far a device is: its own word once it was asked and answered, until it is judged."""
    has_answered = seen.state is not None and seen.generation == progress.generation
    if progress.step is DeviceStep.ASKED and has_answered and seen.state is not None:
        return seen.state.value
    return progress.step.value


def _wave(progress: Progress, observed: dict[DeviceId, Observation], number: int, *, release_id: str) -> api.Wave:
    wave = progress.waves[number - 1]
    return api.Wave(
        number=number,
        state=wave_state(progress, observed, number, release_id=release_id),
        started_at=wave.started_at,
        finished_at=wave.finished_at,
        devices=[
            api.DeviceProgress(
                device_id=device, state=device_state(each, observed.get(device, _UNKNOWN)), reason=each.reason
            )
            for device, each in progress.of_wave(number)
        ],
    )
