"""A workload on pfl-research, written as its own benchmarks are: one resident model per process, data as tensors.

torchrun starts it for several processes. Private training inside a client is Opacus' per-sample gradients in pfl's own
training loop, since pfl brings none of its own.
"""

import os
from dataclasses import replace
from typing import Any

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.gaussian_mechanism import GaussianMechanism
from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism

from simulations.bench.peers.local_steps import accuracy
from simulations.bench.peers.record import Record, arguments
from simulations.problem import Data, Problem
from simulations.workloads.suite import WORKLOADS, Workload


class PrivateFederatedAveraging(FederatedAveraging):  # type: ignore[misc]  # pfl is not there to be looked at
    """FedAvg whose local step is Opacus' DP-SGD."""

    def __init__(self, optimizer: DPOptimizer) -> None:
        super().__init__()
        self._optimizer = optimizer

    def train_one_user(self, initial_model_state: Any, model: Any, user_dataset: Any, central_context: Any) -> Any:
        def step(module: Any, local_optimizer: Any, batch: Any, train_kwargs: Any, train_step_args: Any) -> None:
            self._optimizer.zero_grad()
            module.loss(*batch).backward()
            self._optimizer.step()

        model.do_multiple_epochs_of(user_dataset, central_context.model_train_params, step)
        return model.get_model_difference(initial_model_state), Metrics()


class Marks(TrainingProcessCallback):  # type: ignore[misc]  # likewise
    """Marks each round; pfl calls it after the central model has moved."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._record.mark()
        return False, Metrics()


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    record, load = Record(options.started), WORKLOADS[options.workload]
    problem = _on(options.device, load.problem())
    module = _trainable(load, problem).to(options.device)
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    algorithm = FederatedAveraging()
    if load.local.privacy:
        algorithm = PrivateFederatedAveraging(_private_optimizer(module, load))
    algorithm.run(
        NNAlgorithmParams(
            central_num_iterations=options.rounds,
            evaluation_frequency=options.rounds,
            train_cohort_size=load.cohort,
            val_cohort_size=None,
        ),
        SimulatedBackend(_users(load, problem), None, postprocessors=_postprocessors(load)),
        model,
        NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=load.local.optimizer.learning_rate,
            local_batch_size=load.batch,
        ),
        callbacks=[Marks(record)],
        send_metrics_to_platform=False,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        print(record.document(accuracy=accuracy(module, problem)), flush=True)


def _on(device: str, problem: Problem) -> Problem:
    """With its data on the device from the start, as pfl's own benchmark on images has them."""
    train, test = (Data(data.inputs.to(device), data.labels.to(device)) for data in (problem.train, problem.test))
    return replace(problem, train=train, test=test)


def _trainable(load: Workload, problem: Problem) -> Any:
    """The workload's model with what pfl asks of it: `loss` and `metrics`."""
    model: Any = problem.model(0)
    if load.local.privacy:
        model = GradSampleModule(model)
    model.loss = lambda inputs, labels: problem.losses(model(inputs), labels).mean()
    model.metrics = lambda inputs, labels: {"loss": Weighted(0.0, len(labels))}
    return model


def _private_optimizer(module: torch.nn.Module, load: Workload) -> DPOptimizer:
    privacy = load.local.privacy
    assert privacy is not None
    return DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=load.local.optimizer.learning_rate),
        noise_multiplier=privacy.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=privacy.expected_batch,
    )


def _users(load: Workload, problem: Problem) -> FederatedDataset:
    data, size = problem.train, load.examples

    def user(client: int) -> PyTorchTensorDataset:
        rows = slice(client * size, (client + 1) * size)
        return PyTorchTensorDataset([data.inputs[rows], data.labels[rows]], user_id=str(client))

    clients = list(range(load.clients))
    weights = dict.fromkeys(clients, size)
    return FederatedDataset(user, get_user_sampler("minimize_reuse", clients), user_id_to_weight=weights)


def _postprocessors(load: Workload) -> list[CentrallyAppliedPrivacyMechanism]:
    if not load.user_privacy:
        return []
    clip, noise = load.user_privacy.max_norm, load.user_privacy.noise_multiplier
    return [CentrallyAppliedPrivacyMechanism(GaussianMechanism(clip, noise))]


if __name__ == "__main__":
    main()
