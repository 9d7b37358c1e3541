"""What work costs the accounts of a device's ledger, by what this device can know of the noise. Pure.

- A data set's account pays for noise that the device adds to its own training or answer (DP-SGD, analytics).
- The device's account pays for work that hides the device with all its data. Noise that devices make together under
  secure aggregation is charged as the device can check it: its own share, and the fewest others that its terms allow.
  Noise that the coordinator adds is charged as it was announced, which is to trust it; so are its coins.

Work that announces noise by nobody who could add it is refused. See docs/adr/0012-account-of-a-device.md.
"""

from edge_agent.training.errors import RefusedWorkError
from edge_agent.training.ledger import Charge
from shared.analytics.query import Protected
from shared.messages.work import Work, WorkKind
from shared.privacy import DEVICE, MechanismEvent, NoiseBy
from shared.tasks.task import Task


def data_event(work: Work, task: Task, dataset_id: str) -> MechanismEvent | None:
    """What the work does to the data set; nothing without privacy.

    Training is as many steps of DP-SGD as were asked for; an answer is one look at all of the data, whatever else the
    work says of its privacy.
    """
    privacy = work.privacy
    if privacy is None:
        return None
    is_answer = work.kind is WorkKind.ANALYZE
    return MechanismEvent(
        dataset_id=dataset_id,
        unit=task.privacy_unit,
        noise_multiplier=privacy.noise_multiplier,
        sampling_rate=1.0 if is_answer else privacy.sampling_rate,
        steps=1 if is_answer else privacy.steps_per_round,
    )


def device_charge(work: Work) -> Charge | None:
    """What the work costs the device with all its data; nothing where it hides less than that, or nothing.

    Raises:
        RefusedWorkError: No noise of the announced kind can be in what leaves, or more rounds are asked for than paid.
    """
    if work.kind is WorkKind.ANALYZE:
        return _of_answer(work)
    if work.user_privacy is None:
        return None
    spec = work.user_privacy.spec
    if spec.noise_by is NoiseBy.CLIENTS and (work.secure is None or work.secure.terms.noise is None):
        raise RefusedWorkError("Expected a secure sum for the noise that devices make together, got none")
    if work.round > spec.rounds:
        raise RefusedWorkError(f"Expected one of the {spec.rounds} rounds that the noise is for, got {work.round}")
    of = f"campaign {work.campaign_id}" if spec.is_paid_at_once else f"work {work.work_id}"
    return Charge(f"{DEVICE}, {of}", spec.charge(times=1))


def _of_answer(work: Work) -> Charge | None:
    """An answer that protects a device has the noise for it; one that protects a unit has less than a device needs."""
    if work.privacy is None or work.query is None or work.query.protects is not Protected.DEVICE:
        return None
    event = MechanismEvent(
        dataset_id=DEVICE, unit=DEVICE, noise_multiplier=work.privacy.noise_multiplier, sampling_rate=1.0, steps=1
    )
    return Charge(f"{DEVICE}, work {work.work_id}", event)
