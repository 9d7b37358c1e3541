"""An experiment's file: what is wrong is told with file, line and fix; what is right survives writing and reading."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.attacks.updates import SignFlip
from simulations.experiments.errors import ExperimentError
from simulations.experiments.experiment import Experiment
from simulations.experiments.file import experiment_of, read_experiment
from simulations.experiments.positions import lines_of_keys
from simulations.experiments.text import toml_of
from simulations.partitions.settings import Shards

WRONG = """\
rounds = -3
strateg = "fedavg"

[strategy]
name = "fedadm"

[population]
partition = { kind = "dirichlet", alpa = 0.3 }

[local]
optimizer = { name = "sgd", learning_rate = "fast" }
"""


def told(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ExperimentError) as caught:
        read_experiment(path, overrides)
    return caught.value.message.replace(f"{path}:", "line ").splitlines()


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_mistake_is_told_at_once_with_its_line_and_its_fix(tmp_path: Path) -> None:
    findings = told(written(tmp_path / "e.toml", WRONG))
    assert [finding.split(":")[0] for finding in findings] == ["line 1", "line 2", "line 5", "line 8", "line 11"]
    text = "\n".join(findings)
    assert "Unknown key 'strateg'. Did you mean 'strategy'?" in text
    assert "Did you mean 'fedadam'?" in text
    assert "Unknown key 'alpa' in dirichlet. Did you mean 'alpha'?" in text
    assert "local.optimizer.learning_rate: Expected a valid number" in text


def test_epochs_and_steps_together_are_refused(tmp_path: Path) -> None:
    (finding,) = told(written(tmp_path / "e.toml", "[local]\nepochs = 1\nsteps = 3\n"))
    assert finding == "line 1: local: Expected `epochs` or `steps`, got both: remove one"


def test_broken_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (finding,) = told(written(tmp_path / "e.toml", "rounds = 3\n\n[local\n"))
    assert finding.startswith("line 3: Expected TOML")


def test_a_wrong_override_is_told_as_one(tmp_path: Path) -> None:
    path = written(tmp_path / "e.toml", 'strategy = "fedprox"\n')
    assert told(path, "strategy.proxima=1")[0].startswith("--set strategy.proxima: Unknown key")
    assert told(path, "rounds")[0].startswith("Expected --set key=value")


def test_overrides_win_and_reach_into_tables(tmp_path: Path) -> None:
    path = written(tmp_path / "e.toml", 'rounds = 3\nstrategy = "fedprox"\n')
    experiment = read_experiment(path, ["rounds=7", "strategy.proximal=0.5", "data=physio", "seeds=[1, 2]"])
    assert experiment == experiment_of(
        {"rounds": 7, "strategy": {"name": "fedprox", "proximal": 0.5}, "data": "physio", "seeds": [1, 2]}
    )


def test_lines_are_those_of_keys_and_not_of_text_that_looks_like_one() -> None:
    text = 'name = """\nrounds = 1\n"""\n# rounds = 2\nrounds = 3\n["local"]\noptimizer.name = "sgd"\n'
    lines = lines_of_keys(text)
    assert lines[("rounds",)] == 5
    assert lines[("local", "optimizer", "name")] == 7


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.text(max_size=20),
            "rounds": st.integers(1, 1000),
            "strategy": st.sampled_from(["fedavg", "scaffold", {"name": "fedadam", "beta1": 1e-5}, "multi_krum"]),
            "model": st.sampled_from(["mlp", {"kind": "cnn", "channels": [8, 16]}]),
            "seeds": st.lists(st.integers(0, 2**40), min_size=1, max_size=3),
            "local": st.fixed_dictionaries({"optimizer": st.sampled_from(["sgd", "adam"]), "steps": st.integers(1, 9)}),
            "data": st.sampled_from(["physio", {"kind": "synthetic", "shape": [3, 8, 8]}]),
        },
    )
)
def test_what_is_written_is_read_as_the_same_experiment(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, object]
) -> None:
    experiment = experiment_of(settings)
    path = written(tmp_path_factory.mktemp("e") / "e.toml", toml_of(experiment))
    assert read_experiment(path) == experiment


def test_an_experiment_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Experiment().rounds = 3  # type: ignore[misc]


def test_the_name_of_an_attack_or_a_partition_stands_for_it_with_its_defaults() -> None:
    short = experiment_of({"population": {"partition": "shards"}, "attacks": [{"share": 0.2, "attack": "sign_flip"}]})
    assert short.population.partition == Shards()
    assert short.attacks[0].attack == SignFlip()
