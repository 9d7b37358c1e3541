"""Attacks on the files of a release, between the signature and the device."""

import pytest

from edge_agent.releases.errors import (
    FetchError,
    IncompatibleReleaseError,
    IncompleteDownloadError,
    MixAndMatchError,
    NotFoundError,
    ReleaseError,
    SelfTestFailedError,
    StorageError,
    UnknownReleaseError,
    WrongHashError,
    WrongLengthError,
)
from shared.lifecycles import ReleaseState
from shared.manifests import MANIFEST_FILE, MODEL_FILE, PROFILE_FILE, RELEASE_FILES, SAMPLES_FILE, Manifest
from tests.attacks.device import Device
from tests.support.release_server import ReleaseServer, flipped, release_payloads


def test_an_honest_release_is_installed_through_every_state(device: Device) -> None:
    device.install("two")
    assert device.states == [
        ReleaseState.DOWNLOADING,
        ReleaseState.VERIFYING,
        ReleaseState.TESTING,
        ReleaseState.ACTIVATING,
        ReleaseState.ACTIVE,
    ]
    assert device.serves() == "two"


@pytest.mark.parametrize("name", RELEASE_FILES)
def test_a_flipped_byte_in_any_file_is_refused(device: Device, server: ReleaseServer, name: str) -> None:
    path = server.path_of(server.publish("three"), name)
    server.replaced[path] = flipped(server.stored(path))
    error = device.refuses("three", WrongHashError, f"Expected {name} with SHA-256")
    assert not error.is_worth_retrying
    server.replaced.clear()
    assert device.install("three").release_id == "three"


@pytest.mark.parametrize("name", RELEASE_FILES)
def test_a_missing_file_is_refused(device: Device, server: ReleaseServer, name: str) -> None:
    server.missing.add(server.path_of(server.publish("three"), name))
    assert not device.refuses("three", NotFoundError, "Expected a file").is_worth_retrying


@pytest.mark.parametrize("name", RELEASE_FILES)
def test_a_truncated_file_is_refused(device: Device, server: ReleaseServer, name: str) -> None:
    path = server.path_of(server.publish("three"), name)
    server.replaced[path] = server.stored(path)[:-1]
    assert device.refuses("three", IncompleteDownloadError, f"of {name}, got").is_worth_retrying


@pytest.mark.parametrize("name", RELEASE_FILES)
def test_endless_data_is_cut_off_at_the_signed_length(device: Device, server: ReleaseServer, name: str) -> None:
    server.endless.add(server.path_of(server.publish("three"), name))
    device.refuses("three", WrongLengthError, "got more")


def test_one_signed_file_in_the_place_of_another_is_refused(device: Device, server: ReleaseServer) -> None:
    one, three = server.publish("one-more"), server.publish("three")
    server.replaced[server.path_of(three, MODEL_FILE)] = server.stored(server.path_of(one, MODEL_FILE))
    device.refuses("three", ReleaseError, "three|model.onnx")


def test_a_release_nobody_signed_is_refused(device: Device) -> None:
    device.refuses("four", UnknownReleaseError, "Expected manifest.json of release four in the signed metadata")


def test_another_releases_manifest_under_this_name_is_refused(device: Device, server: ReleaseServer) -> None:
    server.publish("three", release_payloads("two"))
    device.refuses("three", IncompatibleReleaseError, "Expected the manifest of release three, got two")


def test_a_manifest_that_names_other_bytes_than_were_signed_is_refused(device: Device, server: ReleaseServer) -> None:
    payloads = release_payloads("three")
    server.publish("three", {**payloads, MODEL_FILE: flipped(payloads[MODEL_FILE])})
    device.refuses("three", MixAndMatchError, "Expected model.onnx in the manifest as it was signed")


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"release_id": "three"}'],
    ids=["empty", "no fields", "no text", "nested", "one field"],
)
def test_a_signed_manifest_that_is_not_one_is_refused(device: Device, server: ReleaseServer, payload: bytes) -> None:
    server.publish("three", {**release_payloads("three"), MANIFEST_FILE: payload})
    device.refuses("three", IncompatibleReleaseError, "Expected a release manifest")


def test_an_opset_too_new_is_refused_before_anything_is_fetched(device: Device, server: ReleaseServer) -> None:
    server.publish("three", opset=99)
    device.refuses("three", IncompatibleReleaseError, "^Expected opset <= 21, got 99$")
    assert not [path for path, _ in server.requests if path.startswith("targets/releases/three")]


def test_an_opset_too_new_that_only_the_manifest_admits_is_refused(device: Device, server: ReleaseServer) -> None:
    server.publish("three", release_payloads("three", opset=99), opset=20)
    device.refuses("three", IncompatibleReleaseError, "^Expected opset <= 21, got 99$")
    assert not [path for path, _ in server.requests if path.endswith(MODEL_FILE) and "three" in path]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("format_version", 2, "Expected release format 1, got 2"),
        ("ir_version", 99, "Expected ONNX IR version <= 14, got 99"),
        ("outputs", [], "Expected a model of one input and one output, got 1 and 0"),
        ("classes", ["only"], r"Expected outputs of shape \[-1, 1\], got \[-1, 2\]"),
        ("inputs", [{"name": "x", "datatype": "BYTES", "shape": [-1, 1]}], "Expected x of type FP32, got BYTES"),
        ("inputs", [{"name": "x", "datatype": "FP32", "shape": [1, -1]}], r"Expected x of shape \[-1, ...\]"),
        ("files", {}, "Expected model.onnx in the manifest"),
    ],
)
def test_what_the_runtime_cannot_serve_is_refused(
    device: Device, server: ReleaseServer, field: str, value: object, sentence: str
) -> None:
    payloads = release_payloads("three")
    document = Manifest.parse(payloads[MANIFEST_FILE]).model_dump() | {field: value}
    server.publish("three", {**payloads, MANIFEST_FILE: Manifest.parse_document(document).encode()})
    device.refuses("three", IncompatibleReleaseError, sentence)


def test_a_model_that_fails_its_self_test_is_not_served(device: Device) -> None:
    def fails(folder: object, manifest: Manifest) -> None:
        if manifest.release_id == "two":
            raise SelfTestFailedError("Expected outputs within 0.001, got 0.4")

    device.self_test = fails
    device.refuses("two", SelfTestFailedError, "got 0.4")
    assert device.states[-1] is ReleaseState.TESTING


def test_a_self_test_that_crashes_is_a_refusal_too(device: Device) -> None:
    def crashes(folder: object, manifest: object) -> None:
        raise RuntimeError("no kernel for QLinearConv")

    device.self_test = crashes
    device.refuses("two", SelfTestFailedError, "RuntimeError: no kernel")


def test_an_interrupted_download_goes_on_where_it_stopped_after_a_restart(
    device: Device, server: ReleaseServer
) -> None:
    path = server.path_of(server.publish("three"), MODEL_FILE)
    server.cut_after[path] = 2000
    device.refuses("three", FetchError, "the connection broke")
    server.cut_after.clear()
    server.requests.clear()
    assert device.install("three").release_id == "three"
    assert [offset for asked, offset in server.requests if asked == path] == [2000]


def test_a_connection_that_breaks_again_and_again_is_resumed_a_bounded_number_of_times(
    device: Device, server: ReleaseServer
) -> None:
    path = server.path_of(server.publish("three", release_payloads("three", model=b"x" * 20_000)), MODEL_FILE)

    def breaks(asked: str) -> None:
        if asked == path:
            server.cut_after[path] = 1000 * len([1 for seen, _ in server.requests if seen == path])

    server.on_chunk = breaks
    server.cut_after[path] = 1000
    device.refuses("three", FetchError, "of model.onnx, got|connection broke")
    assert len([1 for seen, _ in server.requests if seen == path]) <= 6


def test_a_torn_part_of_a_download_is_fetched_again_from_the_beginning(device: Device, server: ReleaseServer) -> None:
    release = server.publish("three")
    downloads = device.state_dir / "downloads"
    downloads.mkdir()
    (downloads / f"{release.files[MODEL_FILE].digest}.part").write_bytes(b"\0" * 500)
    assert device.install("three").release_id == "three"


def test_files_that_two_releases_share_are_fetched_once(device: Device, server: ReleaseServer) -> None:
    payloads = release_payloads("two")
    manifest = Manifest.parse(payloads[MANIFEST_FILE]).model_copy(update={"release_id": "three"})
    three = server.publish("three", {**payloads, MANIFEST_FILE: manifest.encode()})
    device.install("two")
    server.requests.clear()
    device.install("three")
    fetched = {path for path, _ in server.requests if path.startswith("targets/")}
    assert fetched == {server.path_of(three, MANIFEST_FILE)}


def test_a_full_disk_is_said_in_one_sentence(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    device.refuses("two", StorageError, "free bytes for release two, got 10")


@pytest.mark.parametrize("name", [MODEL_FILE, SAMPLES_FILE, PROFILE_FILE, MANIFEST_FILE, "installed.json"])
def test_a_slot_damaged_on_disk_returns_to_the_previous_release(device: Device, name: str) -> None:
    damaged = device.install("two").folder / name
    damaged.write_bytes(flipped(damaged.read_bytes(), 0))
    assert device.serves() == "one"
    assert device.serves() == "one"
    device.install("two")
    assert device.serves() == "two"


def test_with_both_slots_damaged_nothing_is_served_and_an_install_repairs(device: Device) -> None:
    device.install("two")
    for path in (device.state_dir / "slots").glob(f"?/{MODEL_FILE}"):
        path.write_bytes(b"gone")
    assert device.serves() is None
    device.install("two")
    assert device.serves() == "two"


def test_an_operator_can_return_to_the_previous_release_and_come_back(device: Device) -> None:
    device.install("two")
    device.install("one")
    assert device.serves() == "one"
    device.install("two")
    assert device.serves() == "two"


def test_a_release_in_probation_can_be_left_without_the_network(device: Device, server: ReleaseServer) -> None:
    device.install("two")
    server.requests.clear()
    previous = device.installer.return_to_previous()
    assert previous is not None
    assert previous.release_id == "one"
    assert device.serves() == "one"
    assert server.requests == []


def test_a_release_that_is_active_already_keeps_the_previous_one(device: Device) -> None:
    device.install("two")
    device.install("two")
    assert device.states[-1] is ReleaseState.ACTIVE
    previous = device.installer.return_to_previous()
    assert previous is not None
    assert previous.release_id == "one"
