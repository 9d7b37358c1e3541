"""A workload on Flower's simulation engine, at its best settings on a small machine: one actor of one CPU per process.

Ray starts its workers at a low priority; on a busy machine that would be unfair, so it is set to 0. It is told to start
a cluster of its own: it would join whatever cluster's address is left in `/tmp/ray`, and wait for it for ever. Private
training inside a client is Opacus' as a Flower user would write it; clipping of updates is Flower's own wrapper.
"""

import os

os.environ.update(
    RAY_worker_niceness="0",
    RAY_ADDRESS="local",
    RAY_DEDUP_LOGS="0",
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
)

import logging
from argparse import Namespace

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy
from flwr.simulation import run_simulation

from simulations.bench.peers.local_steps import accuracy, train_client
from simulations.bench.peers.record import Record, arguments
from simulations.problem import Problem
from simulations.workloads.suite import WORKLOADS, Workload

client = ClientApp()
_problems: dict[str, Problem] = {}


@client.train()
def train(message: Message, context: Context) -> Message:
    """One client's round; the data are loaded once in each actor."""
    torch.set_num_threads(1)
    name = str(message.content.config_records["config"]["workload"])
    load = WORKLOADS[name]
    if name not in _problems:
        _problems[name] = load.problem()
    model = _problems[name].model(0)
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    number = int(context.node_config["partition-id"])
    train_client(model, load, _problems[name], number)
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": load.examples}),
        }
    )
    return Message(content=content, reply_to=message)


def main() -> None:
    options = arguments(__doc__)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    load, documents = WORKLOADS[options.workload], list[str]()
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        documents.append(_serve(grid, load, options))

    run_simulation(
        server,
        client,
        num_supernodes=load.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": options.processes, "logging_level": "error", "log_to_driver": False},
        },
    )
    print(documents[0], flush=True)


def _serve(grid: Grid, load: Workload, options: Namespace) -> str:
    record, problem = Record(options.started), load.problem()
    model = problem.model(0)
    strategy: Strategy = FedAvg(
        fraction_train=load.cohort / load.clients, fraction_evaluate=0.0, min_available_nodes=load.clients
    )
    if load.user_privacy:
        privacy = load.user_privacy
        strategy = DifferentialPrivacyServerSideFixedClipping(
            strategy, privacy.noise_multiplier, privacy.max_norm, load.cohort
        )
    last: dict[str, ArrayRecord] = {}

    def evaluate(server_round: int, arrays: ArrayRecord) -> None:
        if server_round:
            record.mark()
        last["arrays"] = arrays

    strategy.start(
        grid,
        ArrayRecord(model.state_dict()),
        num_rounds=options.rounds,
        train_config=ConfigRecord({"workload": options.workload}),
        evaluate_fn=evaluate,
    )
    model.load_state_dict(last["arrays"].to_torch_state_dict())
    return record.document(accuracy=accuracy(model, problem))


if __name__ == "__main__":
    main()
