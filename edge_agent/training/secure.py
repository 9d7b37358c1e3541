"""The device's part in secure aggregation: each step's state is on disk before its answer is.

The machine is `shared.secagg.device`. Here are its files: a round's state, and the encoded update that waits for its
masks. Both are the owner's alone, and only the newest rounds are kept: an older round is over for everybody.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from edge_agent.identity import read_identity
from shared.compression.updates import travelling_values
from shared.errors import FleetlearnError
from shared.files import write_atomically
from shared.messages.work import SecureStep, SecureWork, UserWork
from shared.randomness import SecureRandomness
from shared.secagg import device as machine
from shared.secagg.device import DeviceState, Policy, Sign, Verify
from shared.secagg.errors import RoundRefusedError
from shared.secagg.fixed_point import FixedPoint, Words
from shared.secagg.identities import signer, verifier
from shared.secagg.messages import Agreements, Inbox, Roster, Survivors
from shared.secagg.noise import check_noise, format_of, noised
from shared.tensors import Tensors
from shared.user_privacy import clipped_with_count, summed_noise

ROUNDS_KEPT = 8
_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class SecureRounds:
    """All rounds of this device.

    Args:
        folder: For the files.
        device: Its id.
        certificate: Its own, PEM.
        sign: With its key.
        verify: Against the fleet's CA.
        policy: Its owner's.
    """

    folder: Path
    device: str
    certificate: bytes
    sign: Sign
    verify: Verify
    policy: Policy = field(default_factory=Policy)

    def advertise(self, work: SecureWork, *, model: Tensors, update: Tensors, user: UserWork | None = None) -> bytes:
        """The advertisement of a finished update, which is kept encoded. Raises SecureAggregationError."""
        path = self._state_path(work)
        if not path.exists():
            # With noise that is drawn once: the words lie there before anything of them is told.
            words = encoded(model, update, work, user)
            write_atomically(path.with_suffix(".words"), words.astype("<u4").tobytes(), mode=_OWNER_ONLY)
            self._remove_older()
        root = self._read(work).root if path.exists() else os.urandom(32)
        state, advertisement = machine.advertise(
            work.terms, device=self.device, root=root, sign=self.sign, certificate=self.certificate
        )
        if not path.exists():
            self._write(work, state)
        return advertisement.model_dump_json().encode()

    def answer(self, work: SecureWork, message: bytes) -> bytes:
        """The answer to a later step. Raises SecureAggregationError."""
        state = self._read(work)
        try:
            after, reply = self._steps()[work.step](work, state, message)
        except ValidationError as error:
            raise RoundRefusedError(f"Expected a message of step {work.step}, got other bytes") from error
        self._write(work, after)
        return reply

    def _steps(self) -> dict[SecureStep, Callable[[SecureWork, DeviceState, bytes], tuple[DeviceState, bytes]]]:
        return {
            SecureStep.SHARE: self._share,
            SecureStep.MASK: self._mask,
            SecureStep.AGREE: self._agree,
            SecureStep.RELEASE: self._release,
        }

    def _share(self, work: SecureWork, state: DeviceState, message: bytes) -> tuple[DeviceState, bytes]:
        roster = Roster.model_validate_json(message)
        if len(roster) > work.clients_max:
            raise RoundRefusedError(f"Expected at most {work.clients_max} devices in a sum, got {len(roster)}")
        after, sealed = machine.share(state, roster, policy=self.policy, verify=self.verify)
        return after, sealed.model_dump_json().encode()

    def _mask(self, work: SecureWork, state: DeviceState, message: bytes) -> tuple[DeviceState, bytes]:
        words = np.fromfile(self._state_path(work).with_suffix(".words"), "<u4").astype(np.uint32)
        after, masked = machine.mask(state, Inbox.model_validate_json(message), words)
        return after, masked.astype("<u4").tobytes()

    def _agree(self, work: SecureWork, state: DeviceState, message: bytes) -> tuple[DeviceState, bytes]:
        after, agreement = machine.agree(state, Survivors.model_validate_json(message), sign=self.sign)
        return after, agreement.model_dump_json().encode()

    def _release(self, work: SecureWork, state: DeviceState, message: bytes) -> tuple[DeviceState, bytes]:
        after, unmasking = machine.release(state, Agreements.model_validate_json(message), verify=self.verify)
        return after, unmasking.model_dump_json().encode()

    def _read(self, work: SecureWork) -> DeviceState:
        path = self._state_path(work)
        if not path.exists():
            raise RoundRefusedError(
                f"Expected a round this device takes part in, got {work.terms.round_id[:80]!r}",
                hint="The round is over for this device, or its state was lost; another round follows.",
            )
        state = DeviceState.model_validate_json(path.read_bytes())
        if state.terms != work.terms:
            raise RoundRefusedError("Expected the terms that the round began with, got others")
        return state

    def _write(self, work: SecureWork, state: DeviceState) -> None:
        write_atomically(self._state_path(work), state.model_dump_json().encode(), mode=_OWNER_ONLY)

    def _state_path(self, work: SecureWork) -> Path:
        # By the training, not by the terms: one update is never masked under two rounds' masks.
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{hashlib.sha256(work.training.encode()).hexdigest()[:32]}.state"

    def _remove_older(self) -> None:
        states = sorted(self.folder.glob("*.state"), key=lambda path: path.stat().st_mtime)
        for path in states[: -(ROUNDS_KEPT - 1)]:
            path.with_suffix(".words").unlink(missing_ok=True)
            path.unlink()


def secure_rounds(identity_dir: Path, folder: Path, *, clients_min: int) -> SecureRounds:
    """With the device's own identity; its owner wants sums of so many. Raises NotEnrolledError or DamagedStateError."""
    identity = read_identity(identity_dir)
    return SecureRounds(
        folder,
        device=identity.device_id,
        certificate=identity.certificate.public_bytes(Encoding.PEM),
        sign=signer(identity.key),
        verify=verifier(identity.ca_pem),
        policy=Policy(clients_min=clients_min),
    )


class SecureAggregationUnavailableError(FleetlearnError):
    """Secure aggregation was asked of a process that knows no identity to sign with."""

    code = "secure_unavailable"


def encoded(model: Tensors, update: Tensors, work: SecureWork, user: UserWork | None = None) -> Words:
    """What training changed, or what travels of it, as words. Raises SecureAggregationError."""
    values, noise = travelling_values(update, model), work.terms.noise
    wanted = None if user is None else summed_noise(user.spec, user.clip_norm)
    if noise != wanted:
        raise RoundRefusedError("Expected the noise that hides devices in the terms of the sum, got other noise")
    if noise is None or user is None:
        return FixedPoint(work.clients_max, work.value_max).encode(values)
    check_noise(work.terms, clients_max=work.clients_max)
    vector = clipped_with_count(values, user.spec, user.clip_norm)
    format = format_of(noise, clients_max=work.clients_max)
    return noised(vector, noise, format, randomness=SecureRandomness.from_system())
