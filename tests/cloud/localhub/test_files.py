"""Files from devices: the unmodified device SDK asks and reports, azure-storage-blob uploads; and what is refused."""

import asyncio
import base64
import gc
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx
import pytest
from azure.core.exceptions import HttpResponseError
from azure.iot.device import X509
from azure.iot.device.aio import IoTHubDeviceClient
from azure.storage.blob import BlobClient
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub.errors import ServiceError
from cloud.localhub.files import Blob
from cloud.localhub.limits import Limits
from tests.cloud.localhub.support import Authority, eventually, hub_here, may_bind
from tests.cloud.localhub.tokens import make_sas

_ADDRESS = "127.0.0.95"
_KEY = base64.b64encode(b"f" * 32).decode()
_SAS = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": _KEY, "secondaryKey": _KEY}}}
_CA = {"authentication": {"type": "certificateAuthority"}}

pytestmark = pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")


def _url(place: dict[str, str]) -> str:
    return f"https://{place['hostName']}/{place['containerName']}/{place['blobName']}{place['sasToken']}"


def _upload(place: dict[str, str], data: bytes, authority: Authority, **options: Any) -> None:
    with BlobClient.from_blob_url(_url(place), connection_verify=str(authority.ca_file), retry_total=0) as blob:
        blob.upload_blob(data, **options)


def _refusal(place: dict[str, str], data: bytes, authority: Authority) -> int:
    """The status with which an upload is refused; keeps nothing of the exception, which would hold the connection."""
    try:
        _upload(place, data, authority)
    except HttpResponseError as error:
        return int(error.status_code or 0)
    raise AssertionError("it was not refused")


def _http(authority: Authority, port: int) -> httpx.AsyncClient:
    token = make_sas(resource=f"{_ADDRESS}/devices/press-07", key=_KEY, expiry=int(time.time()) + 60)
    return httpx.AsyncClient(
        base_url=f"https://{_ADDRESS}:{port}",
        verify=authority.context(),
        headers={"authorization": token},
    )


# The SDK never closes its HTTPS sessions.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not may_bind(_ADDRESS, 443), reason="the SDK dials port 443, which may not be bound here")
@pytest.mark.parametrize("with_certificate", [False, True])
def test_the_sdk_asks_for_a_place_uploads_and_reports_and_a_service_is_told(
    tmp_path: Path, *, with_certificate: bool
) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, mqtt_port=8883, rest_port=443) as (live, authority):
            await live.hub.put_identity("press-07", _CA if with_certificate else _SAS, etag=None)
            if with_certificate:
                own = authority.issue("press-07")
                client = IoTHubDeviceClient.create_from_x509_certificate(
                    X509(str(own.certificate_file), str(own.key_file)),  # type: ignore[no-untyped-call]
                    _ADDRESS,
                    "press-07",
                    server_verification_cert=authority.ca_pem,
                )
            else:
                client = IoTHubDeviceClient.create_from_symmetric_key(
                    _KEY, _ADDRESS, "press-07", server_verification_cert=authority.ca_pem
                )
            await client.connect()
            place: Any = await client.get_storage_info_for_blob("logs/today ü.txt")
            assert place["blobName"] == "press-07/logs/today ü.txt"
            data = bytes(range(256)) * 4096
            await asyncio.to_thread(_upload, place, data, authority)
            await client.notify_blob_upload_status(place["correlationId"], True, 200, "fine")
            await client.shutdown()
            del client
            gc.collect()
            notice = await live.hub.files.notices.receive()
            assert notice is not None
            (record,) = notice.records
            assert (record["deviceId"], record["blobName"]) == ("press-07", "press-07/logs/today ü.txt")
            assert record["blobSizeInBytes"] == len(data)
            assert Blob.named(live.hub.files.folder, place["blobName"]).path.read_bytes() == data

    asyncio.run(story())


def test_an_address_is_good_for_its_blob_alone_until_it_expires(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _SAS, etag=None)
            async with _http(authority, live.rest_port) as http:
                place = (await http.post("/devices/press-07/files", json={"blobName": "a"})).json()
                await asyncio.to_thread(_upload, place, b"one", authority)
                assert await asyncio.to_thread(_refusal, place, b"two", authority) == 409
                await asyncio.to_thread(_upload, place, b"three", authority, overwrite=True)
                read = await http.get(f"/uploads/press-07/a{place['sasToken']}")
                assert (read.status_code, read.content) == (200, b"three")
                for changed in ("press-07/b", "press-08/a", "press-07/../press-08/a"):
                    assert await asyncio.to_thread(_refusal, place | {"blobName": changed}, b"x", authority) == 403
                longer = {key: values[0] for key, values in parse_qs(place["sasToken"][1:]).items()}
                longer["se"] = str(int(longer["se"]) + 60)
                expired = live.hub.files.sign("press-07/a", expiry=int(time.time()) - 1)
                for token in (f"?{urlencode(longer)}", expired, ""):
                    assert (await http.get(f"/uploads/press-07/a{token}")).status_code == 403
                assert sorted(path.name for path in live.hub.files.folder.rglob("*")) == ["a", "press-07"]

    asyncio.run(story())


def test_only_an_open_upload_can_be_reported_and_only_a_file_that_is_there(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(uploads_max=2)
        async with hub_here(tmp_path, _ADDRESS, limits=limits) as (live, authority):
            await live.hub.put_identity("press-07", _SAS, etag=None)
            async with _http(authority, live.rest_port) as http:
                place = (await http.post("/devices/press-07/files", json={"blobName": "a"})).json()
                report = {"correlationId": place["correlationId"], "isSuccess": True}
                unknown = report | {"correlationId": "x"}
                statuses = [
                    (await http.post("/devices/press-07/files/notifications", json=body)).status_code
                    for body in (unknown, report, {"isSuccess": True}, report | {"isSuccess": False}, report)
                ]
                assert statuses == [400, 400, 400, 204, 400]
                assert await live.hub.files.notices.receive() is None
                opened = [await http.post("/devices/press-07/files", json={"blobName": name}) for name in "abc"]
                assert [answer.status_code for answer in opened] == [200, 200, 429]
                assert (await http.post("/devices/press-08/files", json={"blobName": "a"})).status_code == 401
                assert (await http.post("/devices/press-07/files", json={"blobName": "../a"})).status_code == 400
                assert (await http.post("/devices/press-07/files", json={})).status_code == 400

    asyncio.run(story())


def test_an_upload_that_breaks_off_or_is_too_large_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(file_bytes_max=1000)
        async with hub_here(tmp_path, _ADDRESS, limits=limits) as (live, authority):
            await live.hub.put_identity("press-07", _SAS, etag=None)
            async with _http(authority, live.rest_port) as http:
                place = (await http.post("/devices/press-07/files", json={"blobName": "a"})).json()
            assert await asyncio.to_thread(_refusal, place, bytes(1001), authority) == 413
            _, writer = await asyncio.open_connection(_ADDRESS, live.rest_port, ssl=authority.context())
            path = f"/uploads/press-07/a{place['sasToken']}"
            head = f"PUT {path} HTTP/1.1\r\nhost: h\r\nx-ms-blob-type: BlockBlob\r\ncontent-length: 900\r\n\r\n"
            writer.write(head.encode() + b"half of it")
            await writer.drain()
            await eventually(lambda: any(live.hub.files.folder.glob(".*")))
            writer.transport.abort()
            await eventually(lambda: not any(live.hub.files.folder.glob(".*")))
            assert list(live.hub.files.folder.iterdir()) == []

    asyncio.run(story())


@given(st.text(max_size=40))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    folder = Path("/hub/files")
    try:
        path = Blob.named(folder, f"press-07/{name}").path
    except ServiceError:
        return
    assert path.is_relative_to(folder / "press-07")
    assert not {".", ".."} & set(path.relative_to(folder).parts)
    assert json.dumps(str(path)).isascii()
