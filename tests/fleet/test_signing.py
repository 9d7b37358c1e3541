"""The operator's machine signs what it has seen, and never a change of what is out."""

import json
import stat
from pathlib import Path

import pytest

from cloud.releases.metadata import ReleaseFiles
from fleet.signing import SigningError, key_ids, make_key, remember_published, review_targets, sign_targets
from tests.support.release_server import ReleaseServer, ref, release_payloads


@pytest.fixture
def server(tmp_path: Path) -> ReleaseServer:
    return ReleaseServer(tmp_path / "cloud")


def _request(server: ReleaseServer, release_id: str) -> str:
    files = {name: ref(payload) for name, payload in release_payloads(release_id).items()}
    return server.repository.signing_request(ReleaseFiles(release_id, "digits", 20, files), now=server.now)[1]


def test_an_operator_sees_what_the_signature_makes_installable(server: ReleaseServer) -> None:
    review = review_targets(_request(server, "one"), targets_key_file=server.targets_key)
    assert (review.version, review.releases) == (2, ("one",))
    assert {file.path for file in review.files} == {f"releases/one/{name}" for name in release_payloads("one")}
    model = release_payloads("one")["model.onnx"]
    assert ref(model).digest in {file.sha256 for file in review.files}


def test_what_was_published_before_is_not_shown_as_new(server: ReleaseServer) -> None:
    signed = sign_targets(_request(server, "one"), targets_key_file=server.targets_key)
    server.publish("one")
    remember_published(signed, targets_key_file=server.targets_key)
    assert review_targets(_request(server, "two"), targets_key_file=server.targets_key).releases == ("two",)


@pytest.mark.parametrize("attack", ["change", "remove", "delegate"])
def test_a_coordinator_in_wrong_hands_gets_no_signature_for_a_changed_release(
    server: ReleaseServer, attack: str
) -> None:
    signed = sign_targets(_request(server, "one"), targets_key_file=server.targets_key)
    server.publish("one")
    remember_published(signed, targets_key_file=server.targets_key)
    document = json.loads(_request(server, "two"))
    match attack:
        case "change":
            document["signed"]["targets"]["releases/one/model.onnx"]["hashes"]["sha256"] = "0" * 64
        case "remove":
            del document["signed"]["targets"]["releases/one/model.onnx"]
        case "delegate":
            document["signed"]["delegations"] = {"keys": {}, "roles": []}
    with pytest.raises(SigningError, match=r"changed|removed|delegations"):
        sign_targets(json.dumps(document), targets_key_file=server.targets_key)


@pytest.mark.parametrize("text", ["", "{}", "null", "[" * 100_000, "\ud800"])
def test_text_that_is_no_request_is_not_signed(server: ReleaseServer, text: str) -> None:
    with pytest.raises(SigningError, match="Expected TUF targets metadata"):
        sign_targets(text, targets_key_file=server.targets_key)


def test_nothing_but_targets_metadata_is_signed(server: ReleaseServer) -> None:
    with pytest.raises(SigningError, match="of the role targets, got root"):
        sign_targets(server.root(), targets_key_file=server.targets_key)


def test_keys_are_made_for_their_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    key_id = make_key(tmp_path / "keys" / "targets.pem")
    assert stat.S_IMODE((tmp_path / "keys" / "targets.pem").stat().st_mode) == 0o600
    assert key_ids(tmp_path / "keys") == {"targets.pem": key_id}
    with pytest.raises(SigningError, match="Expected no file at"):
        make_key(tmp_path / "keys" / "targets.pem")


def test_a_file_that_is_no_key_is_not_repeated_in_the_error(server: ReleaseServer, tmp_path: Path) -> None:
    (tmp_path / "targets.pem").write_text("secret-text")
    with pytest.raises(SigningError, match="Expected an unencrypted PEM private key") as caught:
        sign_targets(_request(server, "one"), targets_key_file=tmp_path / "targets.pem")
    assert "secret-text" not in str(caught.value)
    with pytest.raises(SigningError, match="No such file"):
        sign_targets(_request(server, "one"), targets_key_file=tmp_path / "nothing.pem")
