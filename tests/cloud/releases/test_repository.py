"""The release repository: what it accepts, and that readers see a whole one whatever happens to its writer."""

import json
import stat
import threading
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from cloud.releases.errors import (
    RepositoryStateError,
    StaleSigningRequestError,
    UnknownReleaseFileError,
    UntrustedTargetsError,
)
from cloud.releases.metadata import ReleaseFiles
from cloud.releases.repository import SNAPSHOTS_KEPT, TufRepository, init_repository
from edge_agent.releases.trust import pin_root, refresh
from fleet.signing import sign_targets
from shared.manifests import MODEL_FILE
from tests.support.power_cut import PowerCutError, power_cut
from tests.support.release_server import T0, ReleaseServer, ref, release_payloads

DAY_S = 24 * 3600
CHANGES_MAX = 300


@pytest.fixture
def server(tmp_path: Path) -> ReleaseServer:
    return ReleaseServer(tmp_path)


class Draft:
    """A release that is not published yet, and its operator's signature."""

    def __init__(self, server: ReleaseServer, release_id: str) -> None:
        self.server = server
        self.payloads = release_payloads(release_id)
        self.files = {name: ref(payload) for name, payload in self.payloads.items()}
        self.release = ReleaseFiles(release_id, task="digits", opset=20, files=self.files)

    def request(self) -> str:
        return self.server.repository.signing_request(self.release, now=self.server.now)[1]

    def signed(self) -> str:
        return sign_targets(self.request(), targets_key_file=self.server.targets_key)

    def accept(self, text: str) -> None:
        by_digest = {self.files[name].digest: payload for name, payload in self.payloads.items()}
        self.server.repository.accept_targets(
            text, self.release, open_object=lambda digest: iter([by_digest[digest]]), now=self.server.now
        )


def _readable(server: ReleaseServer, state_dir: Path) -> set[str]:
    """The releases that a new device finds, every one of them with all its files."""
    pin_root(state_dir, server.root())
    targets = refresh(state_dir, server, now=server.now).targets.targets
    for path, target in targets.items():
        folder, name = path.rsplit("/", 1)
        target.verify_length_and_hashes(server.stored(f"targets/{folder}/{target.hashes['sha256']}.{name}"))
    return {path.split("/")[1] for path in targets}


def test_first_start_makes_keys_that_only_their_owner_reads(server: ReleaseServer, tmp_path: Path) -> None:
    keys = sorted(path.name for path in tmp_path.rglob("*.pem"))
    assert keys == ["root.pem", "snapshot.pem", "targets.pem", "timestamp.pem"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.rglob("*.pem"))
    assert _readable(server, tmp_path / "device") == set()


def test_a_second_start_changes_nothing(server: ReleaseServer, tmp_path: Path) -> None:
    before = server.everything()
    init_repository(tmp_path / "tuf", offline_keys_dir=server.keys_dir, now=T0 + 99)
    assert server.everything() == before


def test_the_coordinator_publishes_without_the_offline_keys(server: ReleaseServer, tmp_path: Path) -> None:
    draft = Draft(server, "one")
    signed = draft.signed()
    for path in server.keys_dir.iterdir():
        path.unlink()
    draft.accept(signed)
    assert _readable(server, tmp_path / "device") == {"one"}


def test_publishing_twice_does_no_harm(server: ReleaseServer) -> None:
    draft = Draft(server, "one")
    signed = draft.signed()
    draft.accept(signed)
    before = server.everything()
    draft.accept(signed)
    assert server.everything() == before
    assert server.repository.is_published(draft.release)


def test_a_request_signed_after_another_publication_is_stale(server: ReleaseServer) -> None:
    late, early = Draft(server, "late"), Draft(server, "early")
    signed = late.signed()
    early.accept(early.signed())
    with pytest.raises(StaleSigningRequestError, match="Expected targets metadata version 3, got 2"):
        late.accept(signed)
    late.accept(late.signed())


def test_an_unsigned_request_is_refused(server: ReleaseServer) -> None:
    draft = Draft(server, "one")
    with pytest.raises(UntrustedTargetsError, match="got signatures by none"):
        draft.accept(draft.request())


@pytest.mark.parametrize("role", ["root", "snapshot", "timestamp"])
def test_another_roles_key_does_not_sign_releases(server: ReleaseServer, tmp_path: Path, role: str) -> None:
    key = next(tmp_path.rglob(f"{role}.pem"))
    draft = Draft(server, "one")
    signed = sign_targets(draft.request(), targets_key_file=key)
    with pytest.raises(UntrustedTargetsError, match="Expected a valid signature of the targets key"):
        draft.accept(signed)


def test_a_signature_of_something_else_is_refused(server: ReleaseServer) -> None:
    one, two = Draft(server, "one"), Draft(server, "two")
    with pytest.raises(UntrustedTargetsError, match="adds the files of release one alone, got a difference in"):
        one.accept(two.signed())


@pytest.mark.parametrize("text", ["", "{}", "null", "[" * 100_000, '{"signatures": [], "signed": {}}', "\ud800"])
def test_text_that_is_no_metadata_is_refused(server: ReleaseServer, text: str) -> None:
    with pytest.raises(UntrustedTargetsError, match="Expected signed targets metadata"):
        Draft(server, "one").accept(text)


def test_metadata_of_another_role_is_refused(server: ReleaseServer) -> None:
    with pytest.raises(UntrustedTargetsError, match="of the role targets, got root"):
        Draft(server, "one").accept(server.root())


@pytest.mark.parametrize("change", ["remove", "alter", "extra", "expiry", "field", "delegations"])
def test_signed_metadata_may_say_no_more_and_no_less(server: ReleaseServer, change: str) -> None:
    """Even with the targets key: the coordinator publishes what its table says, or nothing."""
    first, draft = Draft(server, "first"), Draft(server, "one")
    first.accept(first.signed())
    document = json.loads(draft.request())
    targets = document["signed"]["targets"]
    match change:
        case "remove":
            del targets["releases/first/model.onnx"]
        case "alter":
            targets["releases/first/model.onnx"]["length"] += 1
        case "extra":
            targets["releases/one/more.txt"] = targets["releases/one/model.onnx"]
        case "expiry":
            document["signed"]["expires"] = "2099-01-01T00:00:00Z"
        case "field":
            document["signed"]["x-more"] = "more"
        case "delegations":
            document["signed"]["delegations"] = {"keys": {}, "roles": []}
    metadata = Metadata[Targets].from_bytes(json.dumps(document).encode())
    metadata.sign(_signer(server.targets_key))
    with pytest.raises(UntrustedTargetsError, match="Expected targets metadata"):
        draft.accept(metadata.to_bytes().decode())


def test_bytes_that_are_not_those_signed_are_not_published(server: ReleaseServer, tmp_path: Path) -> None:
    draft = Draft(server, "one")
    signed = draft.signed()
    draft.payloads[MODEL_FILE] += b"more"
    with pytest.raises(RepositoryStateError, match="Expected 3400 bytes"):
        draft.accept(signed)
    assert _readable(server, tmp_path / "device") == set()


def test_a_timestamp_is_renewed_after_half_a_day_and_a_snapshot_within_a_week(
    server: ReleaseServer, tmp_path: Path
) -> None:
    draft = Draft(server, "one")
    draft.accept(draft.signed())
    assert not server.repository.refresh_timestamp(T0 + 0.4 * DAY_S)
    for hours in range(12, 24 * 20, 6):
        server.now = T0 + hours * 3600
        server.repository.refresh_timestamp(server.now)
        assert _readable(server, tmp_path / f"device-{hours}") == {"one"}
    assert len(list(server.repository.metadata_dir.glob("*.snapshot.json"))) < 10


def test_old_snapshots_are_forgotten(server: ReleaseServer) -> None:
    for days in range(4, 4 * 30, 4):
        server.repository.refresh_timestamp(T0 + days * DAY_S)
    assert len(list(server.repository.metadata_dir.glob("*.snapshot.json"))) == SNAPSHOTS_KEPT


@pytest.mark.parametrize(
    "name",
    [
        "../online-keys/timestamp.pem",
        "root.json",
        "2.root.json",
        "0.root.json",
        ".lock",
        "",
        "1.root.json/..",
        "x" * 999,
    ],
)
def test_only_metadata_is_served_as_metadata(server: ReleaseServer, name: str) -> None:
    with pytest.raises(UnknownReleaseFileError):
        server.repository.metadata_file(name)


@pytest.mark.parametrize("name", ["../online-keys/timestamp.pem", "releases/../../x", "releases/one/model.onnx", ""])
def test_only_targets_are_served_as_targets(server: ReleaseServer, name: str) -> None:
    server.publish("one")
    with pytest.raises(UnknownReleaseFileError):
        server.repository.target_file(name)


def test_a_repository_that_was_never_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(RepositoryStateError, match="Expected root metadata"):
        TufRepository(tmp_path).root()


def test_a_kill_before_any_write_of_a_publication_leaves_a_readable_repository(tmp_path: Path) -> None:
    for before in range(CHANGES_MAX):
        server = ReleaseServer(tmp_path / str(before))
        server.publish("one")
        draft = Draft(server, "two")
        signed = draft.signed()
        try:
            with power_cut(before=before):
                draft.accept(signed)
        except PowerCutError:
            assert _readable(server, tmp_path / str(before) / "seen") in ({"one"}, {"one", "two"})
            draft.accept(signed)
            assert _readable(server, tmp_path / str(before) / "seen") == {"one", "two"}
            continue
        assert before > 20
        return
    pytest.fail(f"Expected a publication of less than {CHANGES_MAX} changes")


def test_a_kill_before_any_write_of_the_first_start_is_made_good_by_the_next(tmp_path: Path) -> None:
    for before in range(CHANGES_MAX):
        folder = tmp_path / str(before)
        try:
            with power_cut(before=before):
                init_repository(folder / "tuf", offline_keys_dir=folder / "offline-keys", now=T0)
        except PowerCutError:
            server = ReleaseServer(folder)
            server.publish("one")
            assert _readable(server, folder / "device") == {"one"}
            continue
        return
    pytest.fail(f"Expected a first start of less than {CHANGES_MAX} changes")


def test_a_kill_before_any_write_of_a_renewal_leaves_a_readable_repository(tmp_path: Path) -> None:
    for before in range(CHANGES_MAX):
        server = ReleaseServer(tmp_path / str(before))
        server.publish("one")
        server.now = T0 + 4 * DAY_S
        try:
            with power_cut(before=before):
                server.repository.refresh_timestamp(server.now)
        except PowerCutError:
            server.repository.refresh_timestamp(server.now)
            assert _readable(server, tmp_path / str(before) / "device") == {"one"}
            continue
        return
    pytest.fail(f"Expected a renewal of less than {CHANGES_MAX} changes")


def test_publications_and_renewals_of_several_threads_wait_for_each_other(
    server: ReleaseServer, tmp_path: Path
) -> None:
    errors: list[Exception] = []

    def renew() -> None:
        try:
            for step in range(20):
                server.repository.refresh_timestamp(T0 + step * 0.2 * DAY_S)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=renew) for _ in range(3)]
    for thread in threads:
        thread.start()
    for release_id in ("one", "two", "three"):
        server.publish(release_id)
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []
    assert _readable(server, tmp_path / "device") == {"one", "two", "three"}


def _signer(path: Path) -> CryptoSigner:
    from cloud.releases.keys import load_signer

    return load_signer(path)
