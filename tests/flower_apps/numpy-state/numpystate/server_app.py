"""numpystate: rounds of its own, with random numbers that nobody seeded; then it asks what its clients remember."""

import random
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = {"fail-at": context.run_config["fail-at"], "salt": random.random()}
    if context.run_config["use-clock"]:
        config["now"] = time.time()
    strategy = FedAvg(fraction_evaluate=0.0)
    arrays = ArrayRecord([np.random.rand(4), np.zeros((2, 3), np.float32)])
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=context.run_config["num-server-rounds"],
        train_config=ConfigRecord(config),
    )
    if not result.arrays:
        raise RuntimeError("Nobody trained")
    np.savez("result.npz", *result.arrays.to_numpy_ndarrays())

    messages = [Message(RecordDict(), node_id, "query.how_many") for node_id in grid.get_node_ids()]
    left = list(grid.push_messages(messages))
    while left:
        for reply in grid.pull_messages(left):
            left.remove(reply.metadata.reply_to_message_id)
            print("seen", reply.content["metrics"]["seen"] if reply.has_content() else reply.error.reason)
        time.sleep(0.01)
