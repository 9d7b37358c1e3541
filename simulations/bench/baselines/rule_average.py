"""The coordinator's own way from replies to the next model: `... FOLDER STRATEGY COUNT`; prints what it took."""

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from cloud.blobs.store import BlobStore
from cloud.campaigns.aggregating import Aggregator
from cloud.campaigns.replies import Replies
from cloud.campaigns.updates import Expected, Update
from shared.layout import Layout
from shared.messages.events import WorkResult, WorkStatus
from shared.strategies import strategy
from shared.tensors import decode


def main(folder: Path, name: str, count: int) -> None:
    torch.set_num_threads(1)
    model = decode((folder / "model").read_bytes())
    refs = json.loads((folder / "replies.json").read_text(encoding="utf-8"))
    replies = Replies(BlobStore(str(folder / "blobs")), model, expected=Expected(tuple(model)))

    def updates() -> Iterator[tuple[str, Update]]:
        for number in range(count):
            result = WorkResult(
                work_id=str(number),
                status=WorkStatus.DONE,
                update=refs[number % len(refs)],
                metrics={"num-examples": 1.0 + number % 7},
            )
            yield str(number), replies.read(result, sent=model)

    aggregator = Aggregator(strategy(name), Layout.of(model), population=count, folder=folder / "spooled")
    before = time.process_time()
    aggregator.aggregate(model, {}, updates())
    cpu_s = time.process_time() - before
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
