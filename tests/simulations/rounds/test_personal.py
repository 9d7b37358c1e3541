"""The accuracy of clients' own models, on examples that they never trained on."""

import numpy as np
import pytest
import torch

from simulations.experiments.experiment import Experiment
from simulations.experiments.file import experiment_of
from simulations.experiments.run import run
from simulations.results.report import tiles_of
from simulations.rounds.kept import KeptVectors
from simulations.rounds.loop import RoundLoop, kept_defaults
from simulations.rounds.setup import set_up

# Each client has two of ten digits: a model of one's own pays.
UNLIKE = {"clients": 20, "partition": {"kind": "shards", "shards": 2}}


def experiment(strategy: object, **settings: object) -> Experiment:
    small = {"rounds": 6, "population": UNLIKE, "cohort": {"clients": 20}, "local": {"batch_size": 10, "epochs": 2}}
    return experiment_of(small | {"model": {"kind": "mlp", "hidden": [32]}, "strategy": strategy} | settings)


def test_it_is_each_models_own_accuracy_on_what_its_client_holds_out() -> None:
    setup = set_up(experiment("ditto", rounds=2), 0)
    kept = KeptVectors({name: value.numel() for name, value in kept_defaults(setup, setup.start).items()})
    loop = RoundLoop(setup, kept)
    for _ in range(2):
        record = loop.run_round()
    assert setup.personal is not None
    assert len(setup.personal.clients) == 20
    model, found, start = setup.problem.model(0).eval(), [], 0
    for client, size in zip(setup.personal.clients, setup.personal.sizes, strict=True):
        own = kept.read(np.array([client]), kept_defaults(setup, loop.state.model))["personal"][0]
        torch.nn.utils.vector_to_parameters(own, model.parameters())
        rows = torch.from_numpy(setup.personal.rows[start : start + size])
        start += size
        outputs = model(setup.problem.train.inputs[rows])
        found.append(float((outputs.argmax(dim=1) == setup.problem.train.labels[rows]).float().mean()))
        trained_on = setup.population.holdings(np.array([client])).rows
        assert not set(trained_on.tolist()) & set(rows.tolist())
    assert record.personal_accuracy == pytest.approx(np.mean(found))
    assert record.personal_accuracy_p10 == pytest.approx(np.quantile(found, 0.1))
    kept.close()
    setup.close()


@pytest.mark.parametrize("strategy", ["ditto", {"name": "fedper", "local": "3"}, {"name": "fedrep", "local": "3"}])
def test_where_clients_are_unlike_own_models_beat_the_shared_one_on_their_own_data(strategy: object) -> None:
    own = run(experiment(strategy))
    shared = run(experiment("fedavg", evaluation={"held_out": 0.2}))
    assert own.personal_accuracy > shared.personal_accuracy + 0.1
    assert "accuracy of clients' own models" in tiles_of(own)
    # Of plain averaging it is the shared model that is measured, on the same clients' examples.
    assert 0 < shared.personal_accuracy < 1


def test_without_own_models_nothing_is_held_out_unless_it_is_said() -> None:
    plain = run(experiment("fedavg", rounds=1))
    assert np.isnan(plain.personal_accuracy)
    assert "accuracy of clients' own models" not in tiles_of(plain)


def test_it_costs_no_more_than_the_clients_that_are_measured() -> None:
    setup = set_up(experiment("ditto", evaluation={"personal_clients": 3}), 0)
    assert setup.personal is not None
    assert len(setup.personal.clients) == 3
    setup.close()
