"""What a process must never load. A static graph cannot prove that an import is deferred; a fresh interpreter can."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = {"torch", "opacus", "flwr"}
CLOUD = {"fastapi", "sqlmodel", "sqlalchemy", "alembic"}
DATA = {"pandas", "sklearn", "seglearn", "matplotlib"}
TERMINAL = {"textual"}


def modules_after(statement: str, home: Path) -> set[str]:
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import shared.cli", TRAINING | CLOUD | DATA | TERMINAL | {"onnxruntime", "httpx", "typer"}),
        ("import shared.tasks.registry", TRAINING | CLOUD | DATA | TERMINAL),
        ("import edge_agent.__main__, edge_agent.agent", TRAINING | CLOUD | DATA | TERMINAL | {"httpx"}),
        ("import edge_agent.training.process", TRAINING | CLOUD | DATA | TERMINAL),
        ("import fleet.__main__", TRAINING | CLOUD | DATA | TERMINAL | {"onnxruntime"}),
        ("import fleet.app", TRAINING | CLOUD | DATA | {"onnxruntime"}),
        ("import cloud.hubs.__main__", TRAINING | CLOUD | DATA | TERMINAL | {"onnxruntime", "paho"}),
        ("import cloud.localhub.__main__", TRAINING | DATA | TERMINAL | {"fastapi", "onnxruntime"}),
        ("import cloud.__main__, cloud.app", TRAINING | DATA | TERMINAL | {"onnxruntime"}),
    ],
)
def test_a_process_loads_only_what_it_needs(statement: str, forbidden: set[str], tmp_path: Path) -> None:
    assert modules_after(statement, tmp_path) & forbidden == set()
