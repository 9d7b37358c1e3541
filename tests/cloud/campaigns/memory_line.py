"""A line to devices in memory, for Flower's own loops: each answers at once, or never."""

from collections.abc import Callable, Sequence

from cloud.campaigns.flower.hub_grid import Instruction, Reply
from shared.ids import DeviceId


def _nothing(one: Instruction) -> bytes | None:
    return None


class MemoryLine:
    """Devices that answer by a function of what they are asked; None: never."""

    def __init__(self, devices: Sequence[DeviceId], answer: Callable[[Instruction], bytes | None] = _nothing) -> None:
        self._devices, self._answer = devices, answer
        self.sent: list[Instruction] = []

    def devices(self) -> Sequence[DeviceId]:
        return self._devices

    def send(self, instructions: Sequence[Instruction]) -> Sequence[str]:
        first = len(self.sent)
        self.sent += instructions
        return [f"work-{number}" for number in range(first, len(self.sent))]

    def receive(self, work_ids: Sequence[str]) -> Sequence[Reply]:
        asked = [(work_id, self.sent[int(work_id.removeprefix("work-"))]) for work_id in work_ids]
        answers = [(work_id, one, self._answer(one)) for work_id, one in asked]
        return [Reply(work_id, one, answer) for work_id, one, answer in answers if answer is not None]

    def wait(self, work_ids: Sequence[str], *, timeout_s: float | None) -> Sequence[Reply]:
        return self.receive(work_ids)
