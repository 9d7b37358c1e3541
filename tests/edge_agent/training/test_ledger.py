"""The ledger: charged before training, once for each work, never past the owner's limit, never un-spent."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import DamagedStateError
from edge_agent.training import ledger as ledger_module
from edge_agent.training.ledger import (
    Kept,
    Ledger,
    PrivacyOverspendError,
    WorkConflictError,
    ledger_path,
    read_balances,
)
from shared.accountant import epsilon_of
from shared.privacy import MechanismEvent
from tests.edge_agent.training.ledgers import (
    DELTA,
    KEY,
    LIMIT,
    ROUND,
    counting_ledger,
    killed_once_reserved,
    open_ledger,
    same_limits,
)
from tests.shared.test_accountant import event


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


def test_charges_each_data_set_for_all_campaigns_together(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(3):
        ledger.reserve(f"campaign-{number}", dataset_id="data", event=ROUND)
    ledger.reserve("elsewhere", dataset_id="other", event=ROUND)
    assert ledger.balance("data", DELTA) == epsilon_of([ROUND] * 3, DELTA)
    assert ledger.balance("other", DELTA) == epsilon_of([ROUND], DELTA)
    assert {spent.dataset_id: spent.epsilon for spent in read_balances(tmp_path) or []} == {
        "data": ledger.balance("data", DELTA),
        "other": ledger.balance("other", DELTA),
    }


def test_refuses_what_would_pass_the_owners_limit_with_the_figures(ledger: Ledger) -> None:
    for number in range(10):
        ledger.reserve(f"round-{number}", dataset_id="data", event=ROUND)
    spent = ledger.balance("data", DELTA)
    with pytest.raises(PrivacyOverspendError, match=rf"at most epsilon 8 .* after {spent:.3f} spent"):
        ledger.reserve("round-10", dataset_id="data", event=ROUND)
    assert ledger.balance("data", DELTA) == spent <= LIMIT
    ledger.reserve("round-0", dataset_id="data", event=ROUND)


def test_refuses_a_mechanism_with_next_to_no_noise(ledger: Ledger) -> None:
    with pytest.raises(PrivacyOverspendError):
        ledger.reserve("greedy", dataset_id="data", event=event(noise=1e-6, rate=1.0, steps=1))
    assert ledger.balance("data", DELTA) == 0


def test_a_balance_that_is_not_a_number_is_over_the_limit(tmp_path: Path) -> None:
    def broken(events: Sequence[MechanismEvent], delta: float) -> float:
        return float("nan")

    ledger = Ledger(tmp_path, limits=same_limits(LIMIT), epsilon_of=broken, key=KEY)
    with pytest.raises(PrivacyOverspendError):
        ledger.reserve("work", dataset_id="data", event=ROUND)
    ledger.close()


def test_the_same_work_is_charged_once_and_answered_with_the_same_bytes(ledger: Ledger) -> None:
    ledger.reserve("work", dataset_id="data", event=ROUND)
    assert ledger.finished("work") is None
    ledger.reserve("work", dataset_id="data", event=ROUND)
    ledger.finish("work", update=b"update", metrics={"num-examples": 3.0})
    ledger.reserve("work", dataset_id="data", event=ROUND)
    found = ledger.finished("work")
    assert found is not None
    assert (found.update, found.metrics) == (b"update", {"num-examples": 3.0})
    assert found.digest == hashlib.sha256(b"update").hexdigest()
    assert ledger.balance("data", DELTA) == epsilon_of([ROUND], DELTA)


def test_finished_work_has_one_answer_for_ever(ledger: Ledger) -> None:
    ledger.reserve("work", dataset_id="data", event=ROUND)
    ledger.finish("work", update=b"first", metrics={})
    with pytest.raises(WorkConflictError):
        ledger.finish("work", update=b"second", metrics={})
    found = ledger.finished("work")
    assert found is not None
    assert found.update == b"first"


def test_refuses_an_id_that_was_used_for_another_mechanism_or_data(ledger: Ledger) -> None:
    ledger.reserve("work", dataset_id="data", event=ROUND)
    with pytest.raises(WorkConflictError):
        ledger.reserve("work", dataset_id="data", event=event(noise=1.0, rate=1.0, steps=1))
    with pytest.raises(WorkConflictError):
        ledger.reserve("work", dataset_id="other", event=ROUND)
    with pytest.raises(WorkConflictError):
        ledger.reserve("work", dataset_id="data", event=None)


def test_keeps_a_bounded_number_of_updates_and_never_trains_again_for_a_removed_one(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "UPDATES_KEPT_MAX", 2)
    for number in range(4):
        ledger.reserve(f"work-{number}", dataset_id="data", event=None)
        ledger.finish(f"work-{number}", update=f"update {number}".encode(), metrics={})
    assert len(list((tmp_path / "updates").iterdir())) == 2
    with pytest.raises(WorkConflictError, match="no longer kept"):
        ledger.finished("work-0")


def test_refuses_a_stored_update_that_was_damaged(ledger: Ledger, tmp_path: Path) -> None:
    ledger.reserve("work", dataset_id="data", event=None)
    finished = ledger.finish("work", update=b"update", metrics={})
    (tmp_path / "updates" / finished.digest).write_bytes(b"damage")
    with pytest.raises(WorkConflictError, match="other bytes"):
        ledger.finished("work")


@pytest.mark.parametrize("content", [b"", b"this is no ledger " * 500])
def test_a_damaged_ledger_is_said_clearly_and_never_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = ledger_path(tmp_path)
    path.write_bytes(content)
    assert read_balances(tmp_path) is None  # not that nothing was spent
    with pytest.raises(DamagedStateError, match="ledger"):
        open_ledger(tmp_path)
    assert path.read_bytes() == content


def test_a_ledger_with_damaged_pages_is_refused(tmp_path: Path) -> None:
    opened = open_ledger(tmp_path)
    opened.reserve("work", dataset_id="data", event=ROUND)
    opened.close()
    path = ledger_path(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(DamagedStateError, match="damaged file"):
        open_ledger(tmp_path)


@given(
    attempts=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0.8, 2.0, 5.0]), st.integers(1, 4)), min_size=1, max_size=12
    )
)
@settings(max_examples=20, deadline=None)
def test_whatever_is_asked_in_whatever_order_the_limit_holds(
    attempts: list[tuple[int, float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    ledger = open_ledger(tmp_path_factory.mktemp("ledger"), limit=3.0)
    accepted: dict[str, MechanismEvent] = {}
    for number, noise, steps in attempts:
        wanted = event(noise=noise, rate=1.0, steps=steps)
        try:
            ledger.reserve(f"work-{number}", dataset_id="data", event=wanted)
            accepted.setdefault(f"work-{number}", wanted)
        except (PrivacyOverspendError, WorkConflictError):
            pass
        assert ledger.balance("data", DELTA) == pytest.approx(epsilon_of(list(accepted.values()), DELTA))
        assert ledger.balance("data", DELTA) <= 3.0 + 1e-6
    ledger.close()


@pytest.mark.processes
def test_a_kill_between_reserving_and_finishing_cannot_unspend(tmp_path: Path) -> None:
    killed_once_reserved(tmp_path)
    ledger = counting_ledger(tmp_path)
    assert ledger.balance("data", DELTA) == 1
    assert ledger.finished("work") is None
    ledger.reserve("work", dataset_id="data", event=ROUND)
    assert ledger.balance("data", DELTA) == 1
    ledger.close()


def test_reading_balances_needs_no_training_library(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edge_agent.training.ledger import read_balances;"
        "from edge_agent.training.process import TrainingProcess; print(read_balances(Path(sys.argv[1])));"
        "print(sorted({'torch', 'flwr', 'opacus', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_what_later_rounds_go_on_with_is_kept_with_the_update_or_not_at_all(ledger: Ledger) -> None:
    for number in range(2):
        ledger.reserve(f"w{number}", dataset_id="data", event=None)
        assert ledger.kept("c", after_work=f"w{number}") is None
        kept = Kept("c", f"after {number}".encode())
        ledger.finish(f"w{number}", update=b"update", metrics={}, kept=kept)
    with pytest.raises(WorkConflictError):
        ledger.finish("w1", update=b"another", metrics={}, kept=Kept("c", b"another"))
    assert [ledger.kept("c", after_work=f"w{number}") for number in range(2)] == [b"after 0", b"after 1"]
    assert ledger.kept("other", after_work="w1") is None


def test_what_is_kept_is_bounded_and_not_believed_when_damaged(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(ledger_module.KEPT_MAX + 2):
        ledger.reserve(f"w{number}", dataset_id="data", event=None)
        ledger.finish(f"w{number}", update=b"update", metrics={}, kept=Kept("c", f"after {number}".encode()))
    files = list((tmp_path / "kept").iterdir())
    assert len(files) == ledger_module.KEPT_MAX
    assert ledger.kept("c", after_work="w1") is None
    for path in files:
        path.write_bytes(b"damaged")
    assert ledger.kept("c", after_work=f"w{ledger_module.KEPT_MAX}") is None
