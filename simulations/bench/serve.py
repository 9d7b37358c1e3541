"""`fleetlearn bench serve`: the agent's inference endpoint, at 1 and 16 clients, with JSON and binary tensors.

In the same run: a bare ONNX Runtime call in a loop (the floor), FastAPI with pydantic and JSON, and MLServer. All serve
the same int8 model with one runtime thread and get the same windows; the load comes from a process of its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
import orjson

from edge_agent.serving.session import open_model
from shared.manifests import MANIFEST_FILE, MODEL_FILE, Manifest
from shared.tasks.physio import TASK
from simulations.bench import mlserver
from simulations.bench.device import prepare_device, windows
from simulations.bench.errors import BenchError
from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved
from simulations.bench.programs import HOST, Server, agent_server, fastapi_server, free_port, server

CLIENTS = (1, 16)
INPUT, OUTPUT = TASK.schema.input_name, TASK.schema.output_name


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures everything; ends what it started. Raises BenchError."""
    seconds, repetitions = (0.3, 1) if options.is_quick else (2.0, 5)
    python = mlserver.environment_python() if options.with_mlserver else None
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        say("preparing a device with an int8 release")
        state = prepare_device(folder)
        model = folder / "release" / MODEL_FILE
        requests = _write_requests(folder)
        servers = {"agent": stack.enter_context(agent_server(folder, state))}
        servers["fastapi"] = stack.enter_context(fastapi_server(folder, model))
        if python is not None:
            servers["mlserver"] = stack.enter_context(_mlserver_server(folder, model, python))
        cases: dict[str, Measure] = {"bare call": _bare(folder / "release", seconds)}
        for clients in CLIENTS:
            for server_name, form in _forms(servers):
                target, request = servers[server_name], requests(servers[server_name], form)
                case = f"{server_name} {form} c={clients}"
                cases[case] = _load(target, request, clients=clients, seconds=seconds)
        rows = interleaved(cases, repetitions=repetitions, say=say)
    return _result(rows)


def _forms(servers: Mapping[str, Server]) -> list[tuple[str, str]]:
    return [("agent", "json"), ("agent", "binary"), *((name, "json") for name in servers if name != "agent")]


def _result(rows: dict[str, dict[str, float]]) -> BenchResult:
    if failed := [name for name, figures in rows.items() if figures.get("failures")]:
        raise BenchError(f"Expected every request to be answered with 200, got failures in {', '.join(failed)}")
    agent_json, agent_binary = rows["agent json c=16"]["rps"], rows["agent binary c=16"]["rps"]
    ratios = {
        "json_rps_vs_fastapi_json": agent_json / rows["fastapi json c=16"]["rps"],
        "binary_rps_vs_fastapi_json": agent_binary / rows["fastapi json c=16"]["rps"],
    }
    if "mlserver json c=16" in rows:
        ratios["json_rps_vs_mlserver"] = agent_json / rows["mlserver json c=16"]["rps"]
    bare_ms = rows["bare call"]["p50_ms"]
    figures = {
        "json_p50_over_bare_ms": rows["agent json c=1"]["p50_ms"] - bare_ms,
        "binary_p50_over_bare_ms": rows["agent binary c=1"]["p50_ms"] - bare_ms,
        "bare_p50_ms": bare_ms,
        "json_rps_c16": agent_json,
        "binary_rps_c16": agent_binary,
        "binary_p99_ms_c16": rows["agent binary c=16"]["p99_ms"],
    }
    notes = ("Targets: json_rps_vs_mlserver >= 3, binary_rps_vs_fastapi_json >= 6, p50 over bare <= 0.5 ms.",)
    return BenchResult("serve", rows, ratios, figures, notes)


def _mlserver_server(folder: Path, model: Path, python: Path) -> AbstractContextManager[Server]:
    port = free_port()
    models = mlserver.write_model_folder(folder / "mlserver", model=model, name="physio", host=HOST, port=port)
    return server(
        mlserver.command(python, models),
        port=port,
        ready="/v2/models/physio/ready",
        path="/v2/models/physio/infer",
        log=folder / "mlserver.log",
    )


def _bare(release: Path, seconds: float) -> Measure:
    """The floor: the same session, called in a loop, nothing around it."""
    manifest = Manifest.parse((release / MANIFEST_FILE).read_bytes())
    model, inputs = open_model(release / MODEL_FILE, manifest), windows(1)

    def measure() -> Mapping[str, float]:
        latencies = []
        deadline = time.perf_counter() + seconds
        while (started := time.perf_counter()) < deadline:
            model.run(inputs)
            latencies.append(time.perf_counter() - started)
        p50, p99 = np.percentile(latencies, (50, 99)) * 1000
        return {"rps": len(latencies) / seconds, "p50_ms": float(p50), "p99_ms": float(p99), "failures": 0.0}

    return measure


def _load(target: Server, request: Path, *, clients: int, seconds: float) -> Measure:
    arguments = [
        *("--host", HOST, "--port", str(target.port), "--request", str(request)),
        *("--connections", str(clients), "--seconds", str(seconds)),
    ]

    def measure() -> Mapping[str, float]:
        command = [sys.executable, "-m", "simulations.bench.load_client", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90, check=False)
        if done.returncode:
            raise BenchError(f"Expected figures from the load client, got: {done.stderr.strip()[-300:]}")
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

    return measure


def _write_requests(folder: Path) -> Callable[[Server, str], Path]:
    """Requests as they go over the wire, written once per server and form."""
    window = windows(1)
    tensor = {"name": INPUT, "shape": list(window.shape), "datatype": "FP32"}
    text = json.dumps({"id": "1", "inputs": [{**tensor, "data": window.ravel().tolist()}]}).encode()
    header = orjson.dumps(
        {
            "id": "1",
            "inputs": [{**tensor, "parameters": {"binary_data_size": window.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    )
    bodies = {
        "json": (text, "Content-Type: application/json\r\n"),
        "binary": (header + window.tobytes(), f"Inference-Header-Content-Length: {len(header)}\r\n"),
    }

    def write(target: Server, form: str) -> Path:
        body, extra = bodies[form]
        head = f"POST {target.path} HTTP/1.1\r\nHost: {HOST}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        path = folder / f"request-{target.port}-{form}"
        path.write_bytes(head.encode() + body)
        return path

    return write
