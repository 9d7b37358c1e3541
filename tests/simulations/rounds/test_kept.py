"""What clients keep: a dictionary's behaviour, with a log's memory, and nothing of an unfinished round after a kill."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulations.rounds.kept import KeptRows

SIZE = 3
ROUNDS = st.lists(st.sets(st.integers(0, 9), min_size=1), max_size=8)


def write_rounds(kept: KeptRows, rounds: list[set[int]], truth: dict[int, float]) -> None:
    for number, cohort in enumerate(rounds):
        clients = np.array(sorted(cohort))
        values = torch.tensor(clients * 100.0 + number, dtype=torch.float32)[:, None].expand(-1, SIZE)
        kept.write(clients, values)
        truth |= dict(zip(clients.tolist(), values[:, 0].tolist(), strict=True))


@given(ROUNDS)
def test_reads_what_was_written_last_and_the_default_elsewhere(rounds: list[set[int]]) -> None:
    kept, truth = KeptRows(SIZE, path=None, log_bytes_min=0), dict.fromkeys(range(10), -1.0)
    write_rounds(kept, rounds, truth)
    read = kept.read(np.array([9, 0, 5, 3]), torch.full((SIZE,), -1.0))
    kept.close()
    assert read.tolist() == [[truth[client]] * SIZE for client in (9, 0, 5, 3)]


@given(before=ROUNDS, after=ROUNDS)
def test_a_checkpoint_forgets_what_came_after_it(
    tmp_path_factory: object, before: list[set[int]], after: list[set[int]]
) -> None:
    path = Path(str(tmp_path_factory.mktemp("kept"))) / "log"  # type: ignore[attr-defined]
    kept, truth = KeptRows(SIZE, path=path, log_bytes_min=0), dict.fromkeys(range(10), 0.0)
    write_rounds(kept, before, truth)
    index = kept.index()
    kept.tidy()
    write_rounds(kept, after, {})
    kept.close()
    resumed = KeptRows(SIZE, path=path, index=index)
    read = resumed.read(np.arange(10), torch.zeros(SIZE))
    resumed.close()
    assert read[:, 0].tolist() == [truth[client] for client in range(10)]


def test_a_log_does_not_grow_with_rounds(tmp_path: Path) -> None:
    kept = KeptRows(SIZE, path=tmp_path / "log", log_bytes_min=0)
    write_rounds(kept, [{1, 2}] * 100, {})
    kept.index()
    kept.tidy()
    (log,) = tmp_path.iterdir()
    assert log.stat().st_size <= 4 * 2 * SIZE * 4 + 2 * SIZE * 4
    assert kept.read(np.array([2]), torch.zeros(SIZE))[0, 0] == 299
    kept.close()
