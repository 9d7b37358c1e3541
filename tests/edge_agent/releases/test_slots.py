"""Two slots: any order of installs, damages and returns leaves a whole release to serve, if one is whole."""

import hashlib
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.releases.slots import InstalledRecord, InstalledRelease, Slots
from shared.manifests import MANIFEST_FILE
from shared.messages.base import ObjectRef
from tests.support.release_server import release_payloads


def _install(slots: Slots, release_id: str) -> InstalledRelease:
    staging = slots.begin_staging()
    files = {}
    for name, payload in release_payloads(release_id).items():
        (staging / name).write_bytes(payload)
        digest = hashlib.sha256(payload).hexdigest()
        files[name] = ObjectRef.model_validate({"digest": digest, "size_bytes": len(payload)})
    return slots.activate(InstalledRecord(release_id=release_id, files=files, installed_at=1.0))


class SlotsMachine(RuleBasedStateMachine):
    """A model of two names, active and previous, beside the real folders."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name) / "slots"
        self.slots = Slots(self.folder)
        self.active: str | None = None
        self.previous: str | None = None

    @rule(name=st.sampled_from(["one", "two", "three"]))
    def install(self, name: str) -> None:
        self.previous, self.active = self.active, name
        assert _install(self.slots, name).release_id == name

    @rule()
    def return_to_previous(self) -> None:
        returned = self.slots.return_to_previous()
        assert (returned.release_id if returned else None) == self.previous
        if returned is not None:
            self.active, self.previous = self.previous, self.active

    @precondition(lambda self: self.active is not None)
    @rule()
    def damage_the_active_one(self) -> None:
        release = self.slots.active()
        assert release is not None
        (release.folder / MANIFEST_FILE).write_bytes(b"damaged")
        self.active, self.previous = self.previous, None

    @rule()
    def start_again(self) -> None:
        self.slots = Slots(self.folder)

    @rule()
    def die_while_staging(self) -> None:
        (self.slots.begin_staging() / "half").write_bytes(b"half")

    @invariant()
    def what_is_whole_is_served(self) -> None:
        release = self.slots.active()
        assert (release.release_id if release else None) == self.active

    def teardown(self) -> None:
        self.temporary.cleanup()


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


def test_a_pointer_that_is_garbage_finds_a_whole_slot(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slots")
    _install(slots, "one")
    (tmp_path / "slots" / "active").write_bytes(b"\x00\xff")
    found = Slots(tmp_path / "slots").active()
    assert found is not None
    assert found.release_id == "one"
    assert (tmp_path / "slots" / "active").read_bytes() == b"a"


def test_nothing_was_ever_installed(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slots")
    assert slots.active() is None
    assert slots.previous() is None
    assert slots.return_to_previous() is None
    assert list(slots.files()) == []
