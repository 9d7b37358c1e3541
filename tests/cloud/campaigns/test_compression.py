"""Campaigns whose devices send compressed updates, some of which are too old to, and one of which lies."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cloud.campaigns.updates import Expected, read_update
from edge_agent.training.client_app import make_app
from edge_agent.training.compressing import outgoing
from edge_agent.training.flower_call import call_client
from shared.beside import put_beside
from shared.compression.errors import UnknownCompressionError
from shared.compression.negotiation import CODECS
from shared.compression.updates import UPDATE
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import AFTER_WORK, Work
from shared.randomness import SecureRandomness
from shared.tasks.registry import load_task
from shared.tasks.task import DeviceData
from shared.tensors import Tensors, decode, encode
from tests.cloud.campaigns.world import START, Behaviour, World, answer, trains, update_of

WORDS = "top-k=0.1+int8"
DEVICES = 5


class NewAgent:
    """A device that compresses as it is asked, and keeps what did not travel."""

    def __init__(self, data: DeviceData | None = None) -> None:
        self._data = data
        self.kept: dict[str, bytes] = {}
        self.asked: list[Work] = []

    def __call__(self, world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        self.asked.append(work)
        model = world.received(work)
        update, metrics = update_of(device_id, work, model), {"num-examples": 10.0}
        if self._data is not None:
            data, key = self._data, hashlib.sha256(work.work_id.encode()).digest()
            app = make_app(lambda task, context: data, lambda: SecureRandomness(key))
            config = {**work.config, "task": work.task, "task-version": work.task_version}
            made = call_client(app, kind=work.kind, model=model, config=config, privacy=work.privacy)
            update, metrics = made.update, made.metrics
        kept = self.kept.get(str(work.config.get(AFTER_WORK)))
        sent = outgoing(update, model, work.compression, kept=kept, seed=work.round)
        self.kept[work.work_id] = encode(sent.kept)
        ref = world.blobs.put(sent.update)
        return answer(work, WorkStatus.DONE, update=ref, metrics=metrics, model_bytes=100)


def lies(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    """A payload of another model's size."""
    other = outgoing({"w": np.ones(9, np.float32)}, {"w": np.zeros(9, np.float32)}, "int8", kept=None, seed=0)
    return answer(work, WorkStatus.DONE, update=world.blobs.put(other.update), metrics={"num-examples": 10.0})


def test_rounds_of_compressed_updates_make_the_model_better_with_a_tenth_of_the_bytes(tmp_path: Path) -> None:
    world = World(tmp_path)
    slices = list(load_task("digits").device_slices().values())[:DEVICES]
    for number, data in enumerate(slices):
        world.add(f"device-{number}", NewAgent(data))
    world.ask(rounds=6, compression=WORDS)

    world.run()

    campaign = world.campaign()
    accuracies = [round_.accuracy for round_ in campaign.history]
    assert campaign.start_accuracy is not None
    assert accuracies[-1] is not None
    assert accuracies[-1] > campaign.start_accuracy + 0.3
    assert campaign.compression == WORDS
    for round_ in campaign.history:
        assert round_.bytes_up < round_.bytes_up_raw / 10
        assert round_.bytes_down == 100 * DEVICES < round_.bytes_down_raw
        assert {(device.status, device.compression) for device in round_.devices} == {("done", WORDS)}


def test_an_older_agent_sends_in_full_beside_new_ones_and_a_lying_payload_is_left_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = NewAgent()
    behaviours: dict[str, Behaviour] = {"new": agent, "old": trains, "lying": lies}
    for name, behaviour in behaviours.items():
        world.add(name, behaviour)
    world.ask(rounds=1, compression="int4")

    world.run()

    (round_,) = world.campaign().history
    outcomes = {device.device_id: device for device in round_.devices}
    assert (outcomes["new"].status, outcomes["new"].compression) == ("done", "int4")
    assert (outcomes["old"].status, outcomes["old"].compression) == ("done", "")
    assert outcomes["old"].update_bytes > 4 * outcomes["new"].update_bytes
    assert outcomes["new"].update_bytes_raw == outcomes["old"].update_bytes_raw
    assert outcomes["lying"].status == "failed"
    assert "an update of 2410 numbers, got one of 9" in outcomes["lying"].reason


def test_a_device_goes_on_with_what_it_kept_of_its_newest_work_that_counted(tmp_path: Path) -> None:
    world = World(tmp_path)
    agents = [NewAgent() for _ in range(2)]
    for number, agent in enumerate(agents):
        world.add(f"device-{number}", agent)
    world.ask(rounds=3, compression=WORDS)

    world.run()

    for agent in agents:
        ids = [work.work_id for work in agent.asked]
        assert [work.config.get(AFTER_WORK) for work in agent.asked] == [None, *ids[:-1]]


def test_a_campaign_with_an_unknown_compression_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnknownCompressionError, match="'zip' is not a part of one"):
        World(tmp_path).ask(compression="zip")


def test_the_bytes_that_are_stored_are_those_that_were_sent(tmp_path: Path) -> None:
    """What the coordinator keeps of a compressed update is the payload, not the tensors it stands for."""
    world = World(tmp_path)
    for number in range(2):
        world.add(f"device-{number}", NewAgent())
    world.ask(rounds=1, compression=WORDS, model_version_id=START)
    world.run()
    stored = [path.read_bytes() for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert sum(UPDATE in decode(content) for content in stored) == 2


@pytest.mark.parametrize("words", ["", "int8", "top-k=0.1+int4"])
def test_a_strategys_own_vectors_come_whole_beside_a_compressed_update(words: str) -> None:
    start = np.linspace(-1, 1, 40, dtype=np.float32).reshape(8, 5)
    model: Tensors = {"w": start, "frozen": np.ones(3, np.float32)}
    control = np.linspace(-2, 2, 40, dtype=np.float32)
    update = put_beside({"w": start + np.float32(0.1)}, {"control": control})
    payload = outgoing(update, model, words, kept=None, seed=3).update
    ref = ObjectRef(digest=hashlib.sha256(payload).hexdigest(), size_bytes=len(payload))
    expected = Expected(["w"], extras=["control"])
    read = read_update(payload, ref=ref, metrics={"num-examples": 1}, sent=model, expected=expected)
    assert read.tensors.keys() == {"w"}
    np.testing.assert_allclose(np.asarray(read.extras["control"], np.float32), control, atol=2 / 7)


def test_each_device_is_asked_for_what_it_can(tmp_path: Path) -> None:
    world = World(tmp_path)
    agents = {name: NewAgent() for name in ("all", "few", "silent")}
    world.add("all", agents["all"], codecs=list(CODECS))
    world.add("few", agents["few"], codecs=["all", "float32", "int8"])
    world.add("silent", agents["silent"])
    world.ask(rounds=1, compression="top-k=0.1+int8")

    world.run()

    asked = {name: agent.asked[0].compression for name, agent in agents.items()}
    assert asked == {"all": "top-k=0.1+int8", "few": "int8", "silent": "top-k=0.1+int8"}
    (round_,) = world.campaign().history
    assert {device.device_id: device.compression for device in round_.devices} == asked
