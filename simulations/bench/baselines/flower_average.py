"""Flower's FedAvg over the same replies, all in memory, as its Grid has them: `... FOLDER flower COUNT`."""

import json
import resource
import sys
import time
from pathlib import Path

from cloud.campaigns.flower.runtime import prepare_flower


def main(folder: Path, count: int) -> None:
    prepare_flower("bench")
    from flwr.app import ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    from cloud.blobs.store import BlobStore
    from cloud.campaigns.flower.hub_grid import HubGrid
    from cloud.campaigns.flower.records import NodeReply, array_record, message_of
    from shared.ids import DeviceId
    from shared.tensors import decode

    model = decode((folder / "model").read_bytes())
    refs = json.loads((folder / "replies.json").read_text(encoding="utf-8"))
    blobs = BlobStore(str(folder / "blobs"))
    grid = HubGrid(
        run_id=1,
        devices=[DeviceId(f"d{number}") for number in range(count)],
        post=lambda _: [],
        collect=lambda _: [],
        now=lambda: 0.0,
    )
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
