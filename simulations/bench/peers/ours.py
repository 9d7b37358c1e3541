"""A workload on our own engine, in the round loop that `fleetlearn simulate` runs."""

import numpy as np
import torch

from cloud.aggregation.central_privacy.noise import SeededNoise
from cloud.aggregation.central_privacy.private_mean import PrivateMean
from edge_agent.training.algorithms.choice import algorithm_of
from shared.compression.settings import Compression
from shared.layout import Layout
from shared.privacy import UserPrivacySpec
from shared.strategies import FedAvgSettings
from simulations.bench.peers.record import Record, arguments
from simulations.experiments.experiment import EvaluationSettings, Experiment, LocalSettings, SgdSettings
from simulations.partitions.shares import Shares
from simulations.populations.batches import Shuffled
from simulations.populations.cohorts import uniform_cohort
from simulations.populations.dealt import DealtPopulation
from simulations.rounds.aggregation import Streaming, aggregation_of
from simulations.rounds.engines import make_engine
from simulations.rounds.kept import KeptVectors
from simulations.rounds.loop import RoundLoop
from simulations.rounds.participation import Drawn
from simulations.rounds.sending import Channel
from simulations.rounds.setup import Setup
from simulations.workloads.suite import WORKLOADS, Workload


def main() -> None:
    options = arguments(__doc__)
    record, load = Record(options.started), WORKLOADS[options.workload]
    setup = _set_up(load, rounds=options.rounds, device=torch.device(options.device))
    loop = RoundLoop(setup, KeptVectors({}))
    for _ in range(options.rounds):
        last = loop.run_round()
        record.mark()
    setup.close()
    print(record.document(accuracy=last.test_accuracy), flush=True)


def _set_up(load: Workload, *, rounds: int, device: torch.device) -> Setup:
    """As `simulations.rounds.setup` makes it of an experiment, with the workload's own data and clients."""
    problem, size = load.problem(), load.examples
    model = problem.model(0)
    trained = {name: value.detach() for name, value in model.named_parameters()}
    layout, strategy = Layout.of(trained), FedAvgSettings()
    experiment = Experiment(
        rounds=rounds,
        local=LocalSettings(optimizer=SgdSettings(learning_rate=load.local.optimizer.learning_rate)),
        evaluation=EvaluationSettings(every=rounds),
    )
    shares = Shares(np.arange(load.clients * size), np.arange(load.clients + 1) * size)
    plain = aggregation_of(strategy, population=load.clients, cohort=load.cohort)
    return Setup(
        experiment=experiment,
        seed=0,
        problem=problem,
        population=DealtPopulation(shares),
        layout=layout,
        start=torch.cat([value.reshape(-1) for value in trained.values()]).to(device),
        aggregation=Streaming(_private(load, rounds)) if load.user_privacy else plain,
        algorithm=algorithm_of(strategy, model, layout),
        channel=Channel.of(Compression(), layout),
        participants=Drawn(lambda number: uniform_cohort(load.clients, load.cohort, seed=0, round=number)),
        work=Shuffled(batch=load.batch),
        engines=(make_engine("vector" if device.type == "cpu" else "cuda", problem, load.local, rounds=rounds),),
        device=device,
    )


def _private(load: Workload, rounds: int) -> PrivateMean:
    assert load.user_privacy is not None
    spec = UserPrivacySpec(
        epsilon=1e3,  # not what is measured
        delta=1e-5,
        noise_multiplier=load.user_privacy.noise_multiplier,
        clip_norm=load.user_privacy.max_norm,
        sampling_rate=load.cohort / load.clients,
        expected_clients=load.cohort,
        rounds=rounds,
    )
    return PrivateMean(spec, SeededNoise(0))


if __name__ == "__main__":
    main()
