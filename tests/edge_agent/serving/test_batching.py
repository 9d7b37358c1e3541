"""Requests that arrive together: what may run together does, and nobody's answer depends on who else asks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edge_agent.serving.batching import EXAMPLES_MAX, Batcher, Outcome
from edge_agent.serving.errors import InferenceFailedError
from edge_agent.serving.session import Model, Outputs, load
from shared.manifests import MODEL_FILE
from shared.tasks.task import Inputs
from tests.edge_agent.support import PIXELS, images, weights, write_release


class Turn:
    """One turn of an event loop: what was asked to run soon runs when the test says so."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], None]] = []
        self._batcher = Batcher()
        self.outcomes: dict[int, Outcome] = {}

    def ask(self, number: int, model: Model, inputs: Inputs) -> None:
        def done(outcome: Outcome) -> None:
            self.outcomes[number] = outcome

        self._batcher.submit(model, inputs, done, call_soon=self._soon.append)

    def outputs(self, number: int) -> Outputs:
        outcome = self.outcomes[number]
        assert not isinstance(outcome, InferenceFailedError)
        return outcome

    def end(self) -> int:
        """Runs what waits; how often the loop was asked to."""
        soon, self._soon = self._soon, []
        for call in soon:
            call()
        return len(soon)


def model(folder: Path, *nodes: NodeProto, seed: int = 0) -> Model:
    """A release's model: the linear one, or one of these nodes from `pixels` to `logits`."""
    manifest = write_release(folder, seed=seed)
    if nodes:
        table = numpy_helper.from_array(np.arange(PIXELS, dtype=np.float32), "table")
        inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", PIXELS])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", PIXELS])]
        graph = helper.make_graph(list(nodes), "g", inputs, outputs, [table])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.save(made, str(folder / MODEL_FILE))
    return load(folder, manifest).model


def test_everybody_gets_the_own_outputs_from_one_turn(tmp_path: Path) -> None:
    first, second = model(tmp_path / "a", seed=0), model(tmp_path / "b", seed=1)
    turn = Turn()
    asked = [(number, 1 + number % 5) for number in range(40)]
    for number, count in asked:
        turn.ask(number, first if number < 30 else second, images(count, seed=number))
    assert turn.end() == 1
    for number, count in asked:
        expected = images(count, seed=number) @ weights(0 if number < 30 else 1)
        np.testing.assert_allclose(turn.outputs(number), expected, rtol=1e-4)
    assert turn.end() == 0


def test_a_batch_never_outgrows_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linear = model(tmp_path)
    sizes: list[int] = []
    run = linear.run

    def noting(inputs: Inputs) -> Outputs:
        sizes.append(len(inputs))
        return run(inputs)

    monkeypatch.setattr(linear, "run", noting)
    turn = Turn()
    for number in range(20):
        turn.ask(number, linear, images(5))
    turn.end()
    assert max(sizes) <= EXAMPLES_MAX
    assert sum(sizes) == 100
    assert len(sizes) < 20


def test_a_model_that_looks_across_examples_runs_each_request_alone(tmp_path: Path) -> None:
    # As dynamic quantization does: the largest number of the whole batch scales every example.
    largest = helper.make_node("ReduceMax", ["pixels"], ["largest"], keepdims=0)
    crossing = model(tmp_path, largest, helper.make_node("Div", ["pixels", "largest"], ["logits"]))
    assert not crossing.is_batchable
    turn, loud = Turn(), 1000 * images(1)
    turn.ask(0, crossing, images(1))
    turn.ask(1, crossing, loud)
    turn.end()
    np.testing.assert_allclose(turn.outputs(0), images(1) / images(1).max(), rtol=1e-5)


def test_an_input_that_breaks_the_model_costs_the_others_nothing(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["pixels"], ["index"], to=TensorProto.INT64)
    fragile = model(tmp_path, cast, helper.make_node("Gather", ["table", "index"], ["logits"]))
    assert fragile.is_batchable
    turn = Turn()
    for number, value in enumerate((3.0, 9999.0, 5.0)):
        turn.ask(number, fragile, np.full((1, PIXELS), value, np.float32))
    turn.end()
    assert isinstance(turn.outcomes[1], InferenceFailedError)
    np.testing.assert_array_equal(turn.outputs(0), np.full((1, PIXELS), 3.0))
    np.testing.assert_array_equal(turn.outputs(2), np.full((1, PIXELS), 5.0))
