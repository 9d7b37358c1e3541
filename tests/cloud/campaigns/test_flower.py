import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from cloud.campaigns.errors import AggregationFailedError, UnknownNodeError
from cloud.campaigns.flower.hub_grid import HubGrid, Instruction, node_id_of
from cloud.campaigns.flower.records import NodeReply, array_record, message_of, tensors_of
from cloud.campaigns.flower.strategy import RuleStrategy
from shared.flower_records import decode_records, encode_records
from shared.ids import DeviceId
from shared.strategies import strategy
from shared.tensors import Tensors
from tests.cloud.campaigns.memory_line import MemoryLine

DEVICES = tuple(DeviceId(f"device-{number}") for number in range(5))
MODEL: Tensors = {"w": np.arange(4, dtype=np.float32), "b": np.ones((2, 2), np.float32)}


def moved(tensors: Tensors, *, by: float) -> Tensors:
    return {name: np.asarray(value, np.float32) + np.float32(by) for name, value in tensors.items()}


class Fleet:
    """Devices that answer at once by adding a number to what they get: their own, unless all add the same."""

    def __init__(self, *, by: float | None = None) -> None:
        self.by = by
        self.line = MemoryLine(DEVICES, self.answer_to)

    def grid(self) -> HubGrid:
        return HubGrid(run_id=1, line=self.line)

    def answer_to(self, one: Instruction) -> bytes:
        return encode_records(self._answer(one.device, decode_records(one.records), one.message_type))

    def answer(self, message: Message) -> Message:
        """What the device makes of a message that no grid brought it."""
        (device,) = (each for each in DEVICES if node_id_of(each) == message.metadata.dst_node_id)
        return Message(self._answer(device, message.content, message.metadata.message_type), reply_to=message)

    def _answer(self, device: DeviceId, asked: RecordDict, message_type: str) -> RecordDict:
        metrics = MetricRecord({"num-examples": 10.0, "steps": 2.0, "start-loss": 0.5})
        if message_type == "evaluate":
            return RecordDict({"metrics": metrics})
        by = float(device[-1]) if self.by is None else self.by
        arrays = {name: array_record(moved(tensors_of(record), by=by)) for name, record in asked.array_records.items()}
        return RecordDict({**arrays, "metrics": metrics})


def _replies(*updates: Tensors, weights: Sequence[float] = (1, 2, 3, 4, 5)) -> list[Message]:
    return [
        message_of(NodeReply(number, f"w{number}", tensors=update, metrics={"num-examples": weight}), run_id=1, now=0.0)
        for number, (update, weight) in enumerate(zip(updates, weights, strict=False))
    ]


def test_flowers_own_unchanged_loop_runs_over_our_grid() -> None:
    fleet = Fleet()

    result = FedAvg().start(
        grid=fleet.grid(), initial_arrays=array_record(MODEL), num_rounds=2, train_config=ConfigRecord({"lr": 0.1})
    )

    # Each round adds the mean of 0..4 to every number, and evaluation has no arrays to average. Flower averages in the
    # order of its own node sample, which is random, so the last bit may differ.
    expected = np.asarray(moved(MODEL, by=4)["w"], np.float64)
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected, rtol=1e-6)
    sent = fleet.line.sent
    assert [one.message_type for one in sent] == (["train"] * 5 + ["evaluate"] * 5) * 2
    assert [one.round for one in sent] == [1] * 10 + [2] * 10


def test_an_answer_that_is_no_records_is_an_error_to_the_app() -> None:
    grid = HubGrid(run_id=1, line=MemoryLine(DEVICES, lambda _: b"junk"))
    (node, *_) = grid.get_node_ids()

    (reply,) = grid.send_and_receive([grid.create_message(RecordDict(), "train", node, "1")])

    assert reply.has_error()
    assert "records of a Flower app" in str(reply.error.reason)


def test_a_message_to_nobody_is_refused() -> None:
    grid = Fleet().grid()
    with pytest.raises(UnknownNodeError, match="get_node_ids"):
        grid.push_messages([grid.create_message(RecordDict(), "train", 5, "1")])


def test_an_error_comes_back_as_flowers_error() -> None:
    message = message_of(NodeReply(3, "w", error="Out of memory"), run_id=1, now=0.0)

    assert message.has_error()
    assert message.error.reason == "Out of memory"


def test_node_ids_are_stable_positive_63_bit_and_differ() -> None:
    ids = {node_id_of(DeviceId(f"device-{number}")) for number in range(10_000)}

    assert len(ids) == 10_000
    assert all(1 < number < 2**63 for number in ids)
    assert node_id_of(DeviceId("press-07")) == 4698605302860137638


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "scaffold", "feddyn", "fednova", "qfedavg", "median", "krum"])
def test_our_strategies_run_in_flowers_own_loop(name: str) -> None:
    """Everybody sends the model plus one, so that every strategy moves it up."""
    fleet = Fleet(by=1.0)
    ours = RuleStrategy(strategy(name), population=5)

    result = ours.start(grid=fleet.grid(), initial_arrays=array_record(MODEL), num_rounds=2)

    assert (result.arrays["w"].numpy() > MODEL["w"]).all()
    assert result.train_metrics_clientapp[2]["start-loss"] == 0.5


@pytest.mark.parametrize("name", ["fedadam", "scaffold", "feddyn", "fedavgm", "krum"])
def test_a_strategy_that_is_given_its_memory_goes_on_as_if_nothing_happened(name: str) -> None:
    kept, arrays = RuleStrategy(strategy(name), population=5), array_record(MODEL)
    memory: Tensors = {}
    for number in (1, 2, 3):
        fresh = RuleStrategy(strategy(name), population=5)
        fresh.memory = memory
        made = []
        for each in (kept, fresh):
            fleet = Fleet(by=0.5)
            sent = list(each.configure_train(number, arrays, ConfigRecord(), fleet.grid()))
            replies = [fleet.answer(message) for message in sorted(sent, key=lambda one: one.metadata.dst_node_id)]
            made.append(each.aggregate_train(number, replies)[0])
        assert made[0] is not None
        assert made[1] is not None
        for key in MODEL:
            np.testing.assert_array_equal(made[1][key].numpy(), made[0][key].numpy())
        memory, arrays = fresh.memory, made[1]


def test_replies_are_read_one_by_one_and_errors_left_out() -> None:
    ours, fleet = RuleStrategy(strategy("fedavg"), population=5), Fleet(by=1.0)
    sent = list(ours.configure_train(1, array_record(MODEL), ConfigRecord(), fleet.grid()))
    read: list[int] = []

    def replies() -> Iterator[Message]:
        yield message_of(NodeReply(3, "w", error="Out of memory"), run_id=1, now=0.0)
        for number, message in enumerate(sent):
            read.append(number)
            yield fleet.answer(message)

    arrays, metrics = ours.aggregate_train(1, replies())

    assert arrays is not None
    assert metrics is not None
    assert read == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(arrays["w"].numpy(), [1.0, 2.0, 3.0, 4.0], rtol=1e-6)


def test_replies_that_disagree_make_no_model() -> None:
    ours = RuleStrategy(strategy("fedavg"), population=5)
    list(ours.configure_train(1, array_record(MODEL), ConfigRecord(), Fleet().grid()))

    with pytest.raises(AggregationFailedError, match="array 'b'"):
        ours.aggregate_train(1, _replies(MODEL, {"w": MODEL["w"]}))
    with pytest.raises(AggregationFailedError, match="got 0 in all"):
        ours.aggregate_train(1, [])


def test_doorbells_ring_without_waiting_and_bear_a_device_that_is_away() -> None:
    from cloud.campaigns.doorbells import Doorbells
    from shared.hub.port import CommandReply, DeviceOfflineError

    heard: list[DeviceId] = []
    all_rung = threading.Event()

    class Hub:
        async def command(self, device_id: DeviceId, name: str, payload: object, *, timeout_s: float) -> CommandReply:
            heard.append(device_id)
            if len(heard) == 3:
                all_rung.set()
            if device_id == "away":
                raise DeviceOfflineError("Expected a connected device, got none")
            return CommandReply(200, None)

        async def close(self) -> None:
            heard.append(DeviceId("closed"))

    with Doorbells(Hub) as doorbells:  # type: ignore[arg-type]  # only what a doorbell needs of a hub
        doorbells.ring([DeviceId("away"), DeviceId("a"), DeviceId("b")])
        assert all_rung.wait(10)

    assert sorted(heard) == ["a", "away", "b", "closed"]
