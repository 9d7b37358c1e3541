"""Flower's FedAvg over the same replies, all in memory, as its Grid has them: `... FOLDER flower COUNT`."""

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.campaigns.flower.runtime import prepare_flower
from shared.ids import DeviceId

if TYPE_CHECKING:
    from cloud.campaigns.flower.hub_grid import Reply


class _Names:
    """Devices that can be counted; nothing is sent to them."""

    def __init__(self, count: int) -> None:
        self._count = count

    def devices(self) -> list[DeviceId]:
        return [DeviceId(f"d{number}") for number in range(self._count)]

    def send(self, instructions: object) -> Sequence[str]:
        raise NotImplementedError

    def receive(self, work_ids: object) -> Sequence["Reply"]:
        raise NotImplementedError

    def wait(self, work_ids: object, *, timeout_s: float | None) -> Sequence["Reply"]:
        raise NotImplementedError


def main(folder: Path, count: int) -> None:
    prepare_flower("bench")
    from flwr.app import ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    from cloud.blobs.store import BlobStore
    from cloud.campaigns.flower.hub_grid import HubGrid
    from cloud.campaigns.flower.records import NodeReply, array_record, message_of
    from shared.tensors import decode

    model = decode((folder / "model").read_bytes())
    refs = json.loads((folder / "replies.json").read_text(encoding="utf-8"))
    blobs = BlobStore(str(folder / "blobs"))
    grid = HubGrid(run_id=1, line=_Names(count))
    strategy = FedAvg()
    strategy.configure_train(1, array_record(model), ConfigRecord(), grid)
    before = time.process_time()
    replies = []
    for number in range(count):
        tensors = decode(b"".join(blobs.open_range(refs[number % len(refs)]["digest"], 0)))
        metrics = {"num-examples": 1.0 + number % 7}
        reply = NodeReply(number + 2, str(number), tensors=tensors, metrics=metrics)
        replies.append(message_of(reply, run_id=1, now=0.0))
    strategy.aggregate_train(1, replies)
    cpu_s = time.process_time() - before
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[3]))
