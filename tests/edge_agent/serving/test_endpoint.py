"""The endpoint over real sockets: the protocol's routes, its status codes, and a switch under load."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import AddressNotAvailableError, AddressRefusedError
from edge_agent.serving.app import InferenceApp
from edge_agent.serving.observer import Observer
from edge_agent.serving.protocol import Bounds
from edge_agent.serving.server import Endpoint, serving
from edge_agent.serving.session import load
from edge_agent.serving.slot import ServingSlot
from tests.edge_agent.support import images, weights, write_release

ADDRESS = "127.0.0.40"
Answer = tuple[int, dict[str, str], bytes]


class Client:
    """A keep-alive HTTP/1.1 client that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        lines = {"Host": "test", "Content-Length": str(len(body)), **(headers or {})}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._writer.write(head.encode() + b"\r\n" + body)
        return await self.answer()

    async def answer(self) -> Answer:
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await self._reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def line(self) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)

    def send(self, raw: bytes) -> None:
        self._writer.write(raw)

    def close(self) -> None:
        self._writer.close()


class Bench:
    """One endpoint, and clients of it."""

    def __init__(self, endpoint: Endpoint, slot: ServingSlot, observer: Observer) -> None:
        self.endpoint, self.slot, self.observer = endpoint, slot, observer
        self._clients: list[Client] = []

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection(self.endpoint.host, self.endpoint.port))
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


@asynccontextmanager
async def bench(bounds: Bounds | None = None) -> AsyncIterator[Bench]:
    slot, observer = ServingSlot(), Observer()
    app = InferenceApp(slot=slot, observer=observer, version="1.2.3", bounds=bounds)
    async with serving(app, host=ADDRESS, port=0) as endpoint:
        opened = Bench(endpoint, slot, observer)
        try:
            yield opened
        finally:
            opened.close()


def run(story: Callable[[Bench], Awaitable[None]], bounds: Bounds | None = None) -> None:
    async def tell() -> None:
        async with bench(bounds) as opened:
            await story(opened)

    asyncio.run(tell())


def json_body(inputs: Any) -> bytes:
    tensor = {"name": "pixels", "datatype": "FP32", "shape": list(inputs.shape), "data": inputs.ravel().tolist()}
    return json.dumps({"id": "a", "inputs": [tensor]}).encode()


INFER = "/v2/models/digits/infer"


def test_a_device_without_a_release_lives_but_is_not_ready() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.client()
        assert (await client.ask("GET", "/v2/health/live"))[0] == 200
        assert (await client.ask("GET", "/v2/health/ready"))[0] == 503
        assert (await client.ask("GET", "/v2/models/digits/ready"))[0] == 503
        status, _, body = await client.ask("POST", INFER, json_body(images(1)))
        assert (status, json.loads(body)["code"]) == (503, "not_ready")

    run(story)


def test_serves_the_protocols_routes(tmp_path: Path) -> None:
    release = load(tmp_path, write_release(tmp_path))

    async def story(bench: Bench) -> None:
        bench.slot.swap(release)
        client = await bench.client()
        for path in ("/v2/health/ready", "/v2/models/digits/ready", "/v2/models/digits/versions/digits-1/ready"):
            assert (await client.ask("GET", path))[0] == 200
        server = json.loads((await client.ask("GET", "/v2"))[2])
        assert server == {"name": "fleetlearn", "version": "1.2.3", "extensions": ["binary_tensor_data"]}
        model = json.loads((await client.ask("GET", "/v2/models/digits"))[2])
        assert model["versions"] == ["digits-1"]
        assert model["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]

    run(story)


def test_json_and_binary_tensors_give_the_models_outputs(tmp_path: Path) -> None:
    release = load(tmp_path, write_release(tmp_path))
    inputs = images(3)
    expected = inputs @ weights()

    async def story(bench: Bench) -> None:
        bench.slot.swap(release)
        client = await bench.client()
        status, _, body = await client.ask("POST", INFER, json_body(inputs))
        answer = json.loads(body)
        assert (status, answer["id"], answer["model_version"]) == (200, "a", "digits-1")
        np.testing.assert_allclose(np.reshape(answer["outputs"][0]["data"], (3, 10)), expected, rtol=1e-4)

        tensor = {"name": "pixels", "datatype": "FP32", "shape": [3, 64], "parameters": {"binary_data_size": 768}}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        status, headers, body = await client.ask(
            "POST", INFER, head + inputs.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
        )
        split = int(headers["inference-header-content-length"])
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        assert json.loads(body[:split])["outputs"][0]["parameters"] == {"binary_data_size": 120}
        np.testing.assert_allclose(np.frombuffer(body[split:], "<f4").reshape(3, 10), expected, rtol=1e-4)

    run(story)


def test_large_batches_run_beside_the_event_loop(tmp_path: Path) -> None:
    release = load(tmp_path, write_release(tmp_path))
    inputs = images(200)

    async def story(bench: Bench) -> None:
        bench.slot.swap(release)
        status, _, body = await (await bench.client()).ask("POST", INFER, json_body(inputs))
        assert status == 200
        assert json.loads(body)["outputs"][0]["shape"] == [200, 10]

    run(story)


def test_says_what_is_wrong_with_its_proper_status(tmp_path: Path) -> None:
    release = load(tmp_path, write_release(tmp_path))
    good = json_body(images(1))
    cases = [
        ("POST", "/v2/models/other/infer", good, {}, 404),
        ("POST", "/v2/models/digits/versions/digits-0/infer", good, {}, 404),
        ("GET", "/nothing", b"", {}, 404),
        ("GET", "/v2/models/%2e%2e%2fetc", b"", {}, 404),
        ("POST", INFER, b"{}", {}, 400),
        ("POST", INFER, json_body(images(1)[:, :10]), {}, 400),
        ("POST", INFER, good, {"Inference-Header-Content-Length": "x"}, 400),
        ("POST", INFER, good, {"Content-Encoding": "gzip"}, 400),
    ]

    async def story(bench: Bench) -> None:
        bench.slot.swap(release)
        client = await bench.client()
        for method, path, body, headers, expected in cases:
            status, _, answer = await client.ask(method, path, body, headers)
            assert status == expected, (path, answer)
            assert json.loads(answer)["error"].startswith("Expected")
        window = bench.observer.take_window()
        assert window.requests == window.errors == len(cases)

    run(story)


def test_a_wrong_method_is_refused(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        assert (await (await bench.client()).ask("DELETE", "/v2"))[0] == 405
        assert (await (await bench.client()).ask("GET", INFER))[0] == 405

    run(story)


def test_a_body_over_the_bound_is_refused_announced_or_not() -> None:
    async def story(bench: Bench) -> None:
        announced = await bench.client()
        announced.send(f"POST {INFER} HTTP/1.1\r\nHost: t\r\nContent-Length: 999999999\r\n\r\n".encode())
        assert (await announced.answer())[0] == 413
        chunked = await bench.client()
        chunked.send(f"POST {INFER} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(3):
            chunked.send(b"200\r\n" + b"x" * 512 + b"\r\n")
        assert (await chunked.answer())[0] == 413

    run(story, Bounds(body_bytes_max=1024))


def test_a_switch_under_load_loses_no_request(tmp_path: Path) -> None:
    old = load(tmp_path / "old", write_release(tmp_path / "old", release_id="digits-1", seed=0))
    new = load(tmp_path / "new", write_release(tmp_path / "new", release_id="digits-2", seed=5))
    inputs = images(1)
    expected = {"digits-1": inputs @ weights(0), "digits-2": inputs @ weights(5)}

    async def story(bench: Bench) -> None:
        bench.slot.swap(old)
        seen: list[str] = []
        is_half_done = asyncio.Event()

        async def ask_often() -> None:
            client = await bench.client()
            for _ in range(60):
                status, _, body = await client.ask("POST", INFER, json_body(inputs))
                assert status == 200
                answer = json.loads(body)
                seen.append(answer["model_version"])
                if len(seen) == 50:
                    is_half_done.set()
                data = np.reshape(answer["outputs"][0]["data"], (1, 10))
                np.testing.assert_allclose(data, expected[answer["model_version"]], rtol=1e-4)

        async def switch() -> None:
            await is_half_done.wait()
            bench.slot.swap(new)

        await asyncio.gather(switch(), *(ask_often() for _ in range(4)))
        assert set(seen) == {"digits-1", "digits-2"}
        assert seen[-1] == "digits-2"

    run(story)


def test_counts_predictions_examples_and_latencies(tmp_path: Path) -> None:
    release = load(tmp_path, write_release(tmp_path))
    inputs = images(4)
    expected = (inputs @ weights()).argmax(axis=1)

    async def story(bench: Bench) -> None:
        bench.slot.swap(release)
        client = await bench.client()
        await client.ask("POST", INFER, json_body(inputs))
        await client.ask("POST", INFER, json_body(inputs[:1]))
        window = bench.observer.take_window()
        assert (window.requests, window.examples, window.errors, len(window.latencies_s)) == (2, 5, 0, 2)
        assert sum(window.predictions.values()) == 5
        assert window.predictions[int(expected[0])] >= 2
        assert sum(len(batch) for batch in bench.observer.take_inputs()) == 5

    run(story)


def test_strangers_are_kept_out_unless_invited() -> None:
    app = InferenceApp(slot=ServingSlot(), observer=Observer(), version="1")

    async def listen(host: str, *, for_anyone: bool) -> None:
        async with serving(app, host=host, port=0, for_anyone=for_anyone):
            pass

    with pytest.raises(AddressRefusedError, match="loopback"):
        asyncio.run(listen("0.0.0.0", for_anyone=False))  # noqa: S104
    asyncio.run(listen("0.0.0.0", for_anyone=True))  # noqa: S104


def test_a_taken_port_is_said_clearly() -> None:
    async def story(bench: Bench) -> None:
        app = InferenceApp(slot=ServingSlot(), observer=Observer(), version="1")
        with pytest.raises(AddressNotAvailableError, match=str(bench.endpoint.port)):
            async with serving(app, host=ADDRESS, port=bench.endpoint.port):
                pass

    run(story)
