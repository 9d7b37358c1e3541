"""Our tasks and strategies on Flower's own SuperLink: our ServerApp and ClientApp in its processes, none of ours."""

from pathlib import Path

import numpy as np
import pytest

from cloud.campaigns.measuring import Measuring
from shared.tasks.flower_app import write_flower_app
from shared.tasks.registry import load_task
from shared.tasks.torch_model import state_tensors
from shared.tensors import decode, encode
from simulations.demo.processes import Processes
from simulations.superlink import SuperLink

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


def test_scaffold_trains_our_task_on_supernodes(tmp_path: Path) -> None:
    task = load_task("digits")
    slices, initial = list(task.device_slices()), state_tensors(task.model(seed=0))
    (tmp_path / "initial").write_bytes(encode(initial))
    write_flower_app(task, tmp_path / "app")
    result = tmp_path / "model.safetensors"

    with Processes(tmp_path / "logs") as processes:
        link = SuperLink(tmp_path, processes)
        link.start()
        for number in range(2):
            data = tmp_path / f"data-{number}"
            task.write_device_data(data, (slices[number],))
            link.add_node({"data-dir": str(data)})
        initial_file = str(tmp_path / "initial")
        link.run(
            tmp_path / "app",
            {"strategy": "scaffold", "num-server-rounds": 1, "initial": initial_file, "result": str(result)},
        )
        processes.wait_until("the result", result.exists, timeout_s=150)

    made = decode(result.read_bytes())
    assert {name: value.shape for name, value in made.items()} == {name: v.shape for name, v in initial.items()}
    measuring = Measuring(task)
    assert measuring.validation(made).loss < measuring.validation(initial).loss
    assert any(not np.array_equal(made[name], initial[name]) for name in made)
