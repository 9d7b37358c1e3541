"""A workload as the plain loop that people write in a notebook: one model, torch.optim, clients one after another."""

import torch

from simulations.bench.peers.local_steps import accuracy, train_client
from simulations.bench.peers.record import Record, arguments
from simulations.problem import Problem
from simulations.workloads.suite import WORKLOADS, Workload


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    record, load = Record(options.started), WORKLOADS[options.workload]
    problem = load.problem()
    model = problem.model(0)
    for number in range(options.rounds):
        _round(model, load, problem, number)
        record.mark()
    print(record.document(accuracy=accuracy(model, problem)), flush=True)


def _round(model: torch.nn.Module, load: Workload, problem: Problem, number: int) -> None:
    start = {name: value.clone() for name, value in model.state_dict().items()}
    total = {name: torch.zeros_like(value) for name, value in start.items()}
    for turn in range(load.cohort):
        model.load_state_dict(start)
        train_client(model, load, problem, (number * load.cohort + turn) % load.clients)
        changes = {name: value - start[name] for name, value in model.state_dict().items()}
        scale = _clip_factor(changes, load)
        for name, change in changes.items():
            total[name] += change * scale / load.cohort
    model.load_state_dict({name: start[name] + total[name] + _noise(total[name], load) for name in start})


def _clip_factor(changes: dict[str, torch.Tensor], load: Workload) -> float:
    if load.user_privacy is None:
        return 1.0
    norm = torch.linalg.vector_norm(torch.stack([change.norm() for change in changes.values()]))
    return min(1.0, load.user_privacy.max_norm / max(float(norm), 1e-12))


def _noise(total: torch.Tensor, load: Workload) -> torch.Tensor:
    if load.user_privacy is None:
        return torch.zeros_like(total)
    privacy = load.user_privacy
    return torch.randn_like(total) * privacy.noise_multiplier * privacy.max_norm / load.cohort


if __name__ == "__main__":
    main()
