"""The agent's decisions: what it accepts, in which order it acts, and what never happens whatever comes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import signals as s
from edge_agent.core import INSTALL_FAILURES_MAX, WORK_QUEUE_MAX, State, reply_to, step
from shared.exit_codes import ExitCode
from shared.lifecycles import ReleaseState
from shared.messages.desired import ReportedRelease
from shared.messages.work import Work


def work(work_id: str) -> Work:
    model = {"digest": "0" * 64, "size_bytes": 1}
    return Work.model_validate(
        {
            "work_id": work_id, "kind": "train", "campaign_id": "c", "round": 0, "task": "digits",
            "task_version": "1", "model": model, "deadline_s": 10,
        }
    )  # fmt: skip


def desired(generation: int, release_id: str) -> dict[str, Any]:
    return {"release": {"generation": generation, "release_id": release_id}}


class Device:
    """A core with its state, and all effects so far."""

    def __init__(self, *, active: str | None = None, release: ReportedRelease | None = None) -> None:
        self.state = State()
        self.effects: list[s.Effect] = []
        self.tell(s.Started(active, release))

    def tell(self, *signals: s.Signal) -> list[s.Effect]:
        """Effects of these signals."""
        before = len(self.effects)
        for signal in signals:
            self.state, effects = step(self.state, signal)
            self.effects += effects
        return self.effects[before:]

    def of(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    @property
    def release(self) -> ReportedRelease:
        assert self.state.release is not None
        return self.state.release


def test_installs_what_is_desired_and_remembers_it_before_anything_else() -> None:
    device = Device()
    effects = device.tell(s.Connected(desired(3, "r3"), 7))
    order = [type(effect) for effect in effects]
    assert order.index(s.Remember) < order.index(s.Report) < order.index(s.Announce) < order.index(s.StartInstall)
    assert device.of(s.StartInstall) == [s.StartInstall("r3", 3)]
    device.tell(
        s.InstallProgressed(3, ReleaseState.DOWNLOADING),
        s.InstallProgressed(3, ReleaseState.ACTIVE),
        s.InstallEnded(3, "r3", self_test_ms=2.5),
    )
    announced = [effect.status.state.value for effect in device.of(s.Announce)]
    assert announced == ["pending", "downloading", "active"]
    assert device.of(s.Announce)[-1].status.self_test_ms == 2.5
    assert device.of(s.Remember)[-1].release.state is ReleaseState.ACTIVE


def test_refuses_an_older_release_after_a_newer_one() -> None:
    device = Device()
    device.tell(s.Connected(desired(5, "r5"), 1), s.InstallEnded(5, "r5"))
    device.tell(s.Disconnected(100), s.Connected(desired(4, "r4"), 2))
    assert (device.release.generation, device.release.release_id) == (5, "r5")
    assert len(device.of(s.StartInstall)) == 1
    assert device.state.rejected == 1


def test_the_same_generation_again_changes_nothing_and_with_another_release_is_refused() -> None:
    device = Device()
    device.tell(s.Connected(desired(5, "r5"), 1), s.InstallEnded(5, "r5"))
    device.tell(s.Connected(desired(5, "r5"), 1))
    assert device.state.rejected == 0
    device.tell(s.Connected(desired(5, "other"), 2))
    assert device.state.rejected == 1
    assert len(device.of(s.StartInstall)) == 1


def test_a_restart_goes_on_where_it_was() -> None:
    asked = ReportedRelease(generation=2, release_id="r2", state=ReleaseState.PENDING)
    assert Device(active="r1", release=asked).of(s.StartInstall) == [s.StartInstall("r2", 2)]
    # The kill came after the switch and before it was remembered.
    switched = Device(active="r2", release=asked)
    assert switched.of(s.StartInstall) == []
    assert switched.release.state is ReleaseState.ACTIVE
    # A release that failed stays failed: only a newer generation asks again.
    failed = Device(active="r1", release=asked.model_copy(update={"state": ReleaseState.FAILED, "error": "why"}))
    failed.tell(s.Connected(desired(2, "r2"), 1))
    assert failed.of(s.StartInstall) == []
    assert failed.of(s.Report)[-1].release.error == "why"


def test_a_failed_release_is_reported_with_its_reason_and_the_old_one_serves_on() -> None:
    device = Device(active="r1")
    device.tell(s.Connected(desired(2, "r2"), 1), s.InstallEnded(2, "r1", error="Expected x, got y"))
    status = device.of(s.Announce)[-1].status
    assert (status.state, status.error, status.active_release_id) == (ReleaseState.FAILED, "Expected x, got y", "r1")


def test_a_download_that_breaks_is_tried_again_within_a_bound() -> None:
    device = Device()
    device.tell(s.Connected(desired(2, "r2"), 1))
    for failures in range(1, INSTALL_FAILURES_MAX):
        device.tell(s.InstallEnded(2, None, error="away", is_worth_retrying=True))
        assert device.of(s.RetryInstallLater)[-1] == s.RetryInstallLater(2, failures)
        device.tell(s.InstallRetryDue(2))
    device.tell(s.InstallEnded(2, None, error="away", is_worth_retrying=True))
    assert device.release.state is ReleaseState.FAILED


def test_a_newer_release_waits_for_the_install_under_way_then_comes_next() -> None:
    device = Device()
    device.tell(s.Connected(desired(1, "r1"), 1), s.DesiredPatched(desired(2, "r2"), 2))
    assert device.of(s.StartInstall) == [s.StartInstall("r1", 1)]
    device.tell(s.InstallProgressed(1, ReleaseState.VERIFYING))
    assert device.release.state is ReleaseState.PENDING
    device.tell(s.InstallEnded(1, "r1"))
    assert device.of(s.StartInstall)[-1] == s.StartInstall("r2", 2)


def test_going_back_during_an_install_ends_on_what_was_asked_last() -> None:
    device = Device(active="r1")
    device.tell(s.Connected(desired(2, "r2"), 1), s.DesiredPatched(desired(3, "r1"), 2))
    device.tell(s.InstallEnded(2, "r2"))
    assert device.of(s.StartInstall)[-1] == s.StartInstall("r1", 3)
    # Had the install failed, what is asked for would be active already.
    other = Device(active="r1")
    other.tell(s.Connected(desired(2, "r2"), 1), s.DesiredPatched(desired(3, "r1"), 2))
    other.tell(s.InstallEnded(2, "r1", error="no"))
    assert other.release.state is ReleaseState.ACTIVE
    assert len(other.of(s.StartInstall)) == 1


def test_training_waits_for_an_install_and_an_install_for_training() -> None:
    device = Device()
    device.tell(s.Connected(desired(1, "r1"), 1), s.WorkFetched((work("w1"),), frozenset()))
    assert device.of(s.StartWork) == []
    device.tell(s.InstallEnded(1, "r1"))
    assert [effect.work.work_id for effect in device.of(s.StartWork)] == ["w1"]
    device.tell(s.DesiredPatched(desired(2, "r2"), 2))
    assert len(device.of(s.StartInstall)) == 1
    device.tell(s.WorkEnded("w1"))
    assert device.of(s.StartInstall)[-1] == s.StartInstall("r2", 2)


def test_work_goes_on_while_a_broken_download_waits() -> None:
    device = Device()
    device.tell(s.Connected(desired(1, "r1"), 1), s.WorkFetched((work("w1"),), frozenset()))
    device.tell(s.InstallEnded(1, None, error="away", is_worth_retrying=True))
    assert len(device.of(s.StartWork)) == 1
    device.tell(s.InstallRetryDue(1))
    assert len(device.of(s.StartInstall)) == 1
    device.tell(s.WorkEnded("w1"))
    assert len(device.of(s.StartInstall)) == 2


def test_work_fetched_twice_is_done_once_and_finished_work_is_answered_again() -> None:
    device = Device()
    both = (work("w1"), work("w2"))
    device.tell(s.WorkFetched(both, frozenset()), s.WorkFetched(both, frozenset()))
    assert [item.work_id for item in device.state.queue] == ["w2"]
    device.tell(s.WorkEnded("w1"), s.WorkFetched(both, frozenset({"w1"})))
    assert device.of(s.ResendResult) == [s.ResendResult("w1")]
    assert [effect.work.work_id for effect in device.of(s.StartWork)] == ["w1", "w2"]


def test_a_doorbell_during_a_fetch_fetches_once_more() -> None:
    device = Device()
    device.tell(s.CommandArrived("work", {}), s.CommandArrived("work", None), s.CommandArrived("work", {}))
    assert len(device.of(s.Fetch)) == 1
    device.tell(s.WorkFetched((), frozenset()))
    assert len(device.of(s.Fetch)) == 2


def test_failures_are_counted_until_a_connection_lasts() -> None:
    device = Device()
    device.tell(s.Disconnected(0), s.Disconnected(0), s.Connected({}, 1), s.Disconnected(1.0))
    assert [effect.failures for effect in device.of(s.Connect)] == [0, 1, 2, 3]
    device.tell(s.Connected({}, 1), s.Disconnected(31))
    assert device.of(s.Connect)[-1] == s.Connect(0)


def test_old_patches_are_ignored_and_a_missed_one_reads_the_whole_document() -> None:
    device = Device()
    device.tell(s.Connected(desired(1, "r1"), 5))
    assert device.tell(s.DesiredPatched(desired(9, "r9"), 5)) == []
    assert device.tell(s.DesiredPatched(desired(9, "r9"), 8)) == [s.ReadTwin()]
    device.tell(s.TwinRead(desired(9, "r9"), 8))
    assert device.release.generation == 9


def test_a_revoked_device_stops_for_good() -> None:
    device = Device()
    assert device.tell(s.Revoked()) == [s.Stop(ExitCode.REVOKED)]
    assert device.tell(s.Connected(desired(1, "r1"), 1), s.FetchDue()) == []


@pytest.mark.parametrize(
    ("name", "payload", "status"),
    [("work", {}, 200), ("work", None, 200), ("work", 7, 400), ("work", [], 400), ("reboot", {}, 404), ("", {}, 404)],
)
def test_commands_are_answered_at_once(name: str, payload: object, status: int) -> None:
    assert reply_to(name, payload).status == status
    device = Device()
    device.tell(s.CommandArrived(name, payload))
    assert device.state.rejected == (0 if status == 200 else 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 9) | st.floats() | st.text(max_size=70),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "release": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "generation": st.integers(-2, 9) | json_values,
                "release_id": st.sampled_from(["r1", "r2", "r3"]) | json_values,
            },
        ),
        "other": json_values,
    },
)
generations = st.integers(1, 9)
ids = st.sampled_from(["r1", "r2", "r3"])
works = st.lists(st.sampled_from([work(f"w{number}") for number in range(6)]), max_size=6).map(tuple)
any_signal: st.SearchStrategy[s.Signal] = st.one_of(
    st.builds(s.Connected, documents, st.integers(0, 30)),
    st.builds(s.Disconnected, st.floats(0, 100)),
    st.builds(s.DesiredPatched, documents, st.integers(0, 30)),
    st.builds(s.TwinRead, documents, st.integers(0, 30)),
    st.builds(s.CommandArrived, st.sampled_from(["work", "x"]) | st.text(max_size=9), json_values),
    st.builds(s.FetchDue),
    st.builds(s.FetchFailed),
    st.builds(s.WorkFetched, works, st.frozensets(st.sampled_from(["w0", "w1"]))),
    st.builds(s.WorkEnded, st.sampled_from([f"w{number}" for number in range(6)])),
    st.builds(s.InstallProgressed, generations, st.sampled_from(list(ReleaseState))),
    st.builds(s.InstallEnded, generations, ids, st.sampled_from(["", "bad"]), st.booleans()),
    st.builds(s.InstallRetryDue, generations),
)


@settings(max_examples=400, deadline=None)
@given(st.none() | ids, st.lists(any_signal, max_size=40))
def test_whatever_comes_in_whatever_order_the_invariants_hold(active: str | None, told: list[s.Signal]) -> None:
    device = Device(active=active)
    generation, running = 0, set[str]()
    for signal in told:
        if isinstance(signal, s.InstallEnded) and device.state.installing == signal.generation:
            running.discard("install")
        if isinstance(signal, s.WorkEnded) and device.state.training == signal.work_id:
            running.discard("training")
        for effect in device.tell(signal):
            match effect:
                case s.StartInstall():
                    assert not running, "an install starts while something runs"
                    running.add("install")
                case s.StartWork():
                    assert not running, "work starts while something runs"
                    running.add("training")
                case s.Remember(release):
                    assert release.generation >= generation, "an older generation was accepted"
                    generation = release.generation
        assert len(device.state.queue) <= WORK_QUEUE_MAX
        assert len({item.work_id for item in device.state.queue}) == len(device.state.queue)
        assert ("install" in running) == (device.state.installing is not None)
        assert ("training" in running) == (device.state.training is not None)


@settings(max_examples=200, deadline=None)
@given(documents)
def test_a_malformed_document_is_counted_once_and_changes_nothing_else(document: dict[str, Any]) -> None:
    device = Device(active="r1")
    before = device.state
    effects = device.tell(s.TwinRead(document, 1))
    if device.state.rejected:
        assert device.state.rejected == 1
        assert device.state.release == before.release
        assert [type(effect) for effect in effects] == [s.Reject]
