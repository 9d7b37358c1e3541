"""The choice: measured once, kept, forced, refused with a reason."""

from pathlib import Path

import pytest
import torch
from torch import nn

from simulations.engines.errors import UnsupportedModelError
from simulations.engines.port import Adam, ExamplePrivacy, LocalTraining, Sgd
from simulations.engines.vector.choice import Choice, Way, user_cache_folder
from simulations.engines.vector.engine import VectorEngine, VectorSettings
from simulations.engines.vector.layers.kernel import Convolve, Form, Weights
from simulations.engines.vector.layers.network import NotReadableError, read
from simulations.problem import Data, Problem
from tests.simulations.engines.problems import Residual, Rows, dense, problem, start_of, uneven

PLAIN = LocalTraining(Sgd(0.1))


def test_a_choice_is_measured_once_and_kept(tmp_path: Path) -> None:
    subject = problem(dense)
    settings = VectorSettings(1, trial_s=0.01, cache_folder=tmp_path / "deep")
    first, second = VectorEngine(subject, PLAIN, settings), VectorEngine(subject, PLAIN, settings)
    folds = [engine.train(uneven(start_of(subject)), Rows()) for engine in (first, second)]
    assert "in a trial" in first.notes[0]
    assert "measured before" in second.notes[0]
    assert first.choices == second.choices
    assert torch.equal(folds[0]["deltas"], folds[1]["deltas"])


@pytest.mark.parametrize("weights", [Weights.OWN, Weights.SHARED])
def test_a_run_that_goes_on_computes_as_it_began_whatever_would_be_chosen_now(tmp_path: Path, weights: Weights) -> None:
    subject, file = problem(dense), tmp_path / "engine.json"
    choice = Choice(Way.LAYERS, 2, Form(weights, Convolve.UNFOLDED))
    began = VectorEngine(subject, PLAIN, VectorSettings(1, choice=choice, cache_folder=None))
    goes_on = VectorEngine(subject, PLAIN, VectorSettings(1, trial_s=0.01, cache_folder=None))
    for engine in (began, goes_on):
        engine.remember_in(file)
    folds = [engine.train(uneven(start_of(subject)), Rows()) for engine in (began, goes_on)]
    assert goes_on.choices == (choice,)
    assert "as the run began" in goes_on.notes[-1]
    assert torch.equal(folds[0]["deltas"], folds[1]["deltas"])


@pytest.mark.parametrize("text", ["", "[]", "3", '{"10": 3}', '{"10": "{}"}'])
def test_a_remembered_choice_that_cannot_be_read_is_measured_again(tmp_path: Path, text: str) -> None:
    subject, file = problem(dense), tmp_path / "engine.json"
    file.write_text(text, encoding="utf-8")
    engine = VectorEngine(subject, PLAIN, VectorSettings(1, trial_s=0.01, cache_folder=None))
    engine.remember_in(file)
    engine.train(uneven(start_of(subject)), Rows())
    assert "in a trial" in engine.notes[-1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"way": "layers", "chunk": 0, "form": null}', '{"way": "no"}'])
def test_a_kept_choice_that_cannot_be_read_is_measured_again(tmp_path: Path, text: str) -> None:
    subject = problem(dense)
    settings = VectorSettings(1, trial_s=0.01, cache_folder=tmp_path)
    for _ in range(2):
        engine = VectorEngine(subject, PLAIN, settings)
        engine.train(uneven(start_of(subject)), Rows())
        assert "in a trial" in engine.notes[0]
        for file in tmp_path.iterdir():
            file.write_text(text, encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    subject = problem(dense)
    engine = VectorEngine(subject, PLAIN, VectorSettings(1, trial_s=0.01, cache_folder=tmp_path / "file"))
    assert engine.train(uneven(start_of(subject)), Rows())["times"].sum() == 7


def test_choices_are_kept_where_the_user_keeps_caches() -> None:
    assert user_cache_folder({"XDG_CACHE_HOME": "/somewhere"}) == Path("/somewhere/fleetlearn/engines")
    assert user_cache_folder({}) == Path.home() / ".cache" / "fleetlearn" / "engines"


def test_a_forced_way_that_cannot_compute_it_is_refused() -> None:
    low_rank = Choice(Way.LAYERS, 4, Form(Weights.SHARED, Convolve.UNFOLDED))
    subject = problem(dense)
    engine = VectorEngine(subject, LocalTraining(Adam(0.1)), VectorSettings(1, choice=low_rank, cache_folder=None))
    with pytest.raises(UnsupportedModelError, match="shared weights"):
        engine.train(uneven(start_of(subject)), Rows())


def test_batch_statistics_under_example_privacy_are_refused_before_the_run() -> None:
    subject = problem(dense)
    data = subject.train
    mixing = Problem("mixing", lambda seed: nn.Sequential(nn.BatchNorm1d(12)), subject.losses, data, data, 3)
    private = LocalTraining(Sgd(0.1), ExamplePrivacy(1.0, 1.0, 4.0))
    with pytest.raises(UnsupportedModelError, match="BatchNorm in 0"):
        VectorEngine(mixing, private, VectorSettings(1, cache_folder=None))


def test_what_the_fast_ways_cannot_do_falls_back_and_is_said() -> None:
    data = Data(torch.randn(60, 12), torch.randint(3, (60,)))
    model = nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    subject = Problem("mixing", lambda seed: model, problem(dense).losses, data, data, 3)
    assignment = uneven(start_of(subject))
    assignment.batches[assignment.batches < 0] = 0  # a batch of one has no statistics
    engine = VectorEngine(subject, PLAIN, VectorSettings(1, trial_s=0.01, cache_folder=None))
    engine.train(assignment, Rows())
    assert "BatchNorm1d" in engine.notes[0]
    assert engine.choices == (Choice(Way.IN_PLACE, 1),)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Residual(), "a Residual has no hand-written form"),
        (nn.Sequential(nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 3)), "a LayerNorm"),
        (nn.Sequential(nn.Linear(4, 3), nn.Flatten()), "more than a vector"),
        (nn.Sequential(nn.Flatten(), *[nn.Linear(12, 12)] * 2), "used twice"),
        (nn.Sequential(nn.Conv1d(3, 3, 3, groups=3), nn.Flatten(), nn.Linear(6, 3)), "groups"),
        (nn.Sequential(nn.Conv1d(3, 3, 3)), "no vectors"),
        (nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(6, 3)), "another dimension"),
    ],
)
def test_a_model_without_hand_written_form_is_refused_with_the_reason(model: nn.Module, reason: str) -> None:
    with pytest.raises(NotReadableError, match=reason):
        read(model, (3, 4))


def test_a_module_with_a_forward_function_of_its_own_is_not_taken_for_its_parent() -> None:
    class Doubling(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(inputs)

    with pytest.raises(NotReadableError, match="Doubling"):
        read(nn.Sequential(nn.Flatten(), Doubling(12, 3)), (3, 4))


def test_a_hook_is_not_passed_over() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model[1].register_forward_hook(lambda module, inputs, outputs: outputs * 2)
    with pytest.raises(NotReadableError, match="hooks"):
        read(model, (3, 4))
