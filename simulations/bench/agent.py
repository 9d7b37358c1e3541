"""`fleetlearn bench agent`: memory and start-up of a serving agent, beside one that imports everything.

Each repetition starts both, in turn, waits until they serve the same int8 model, sends some requests, and looks at the
resident memory. The agent is the real program: hub SDK, trust, outbox, monitor, endpoint.
"""

import http.client
import json
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from shared.manifests import MODEL_FILE
from shared.tasks.physio import TASK
from simulations.bench.device import prepare_device, windows
from simulations.bench.errors import BenchError
from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved
from simulations.bench.programs import HOST, Server, agent_server, fastapi_server

REQUESTS = 200
RSS_MB_MAX = 130.0
"""What the agent may take; 100 is the aim."""


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures both; ends what it started. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name:
        folder = Path(name)
        say("preparing a device with an int8 release")
        state = prepare_device(folder)
        model = folder / "release" / MODEL_FILE
        cases: dict[str, Measure] = {
            "agent": lambda: _measure(agent_server(folder, state)),
            "naive": lambda: _measure(fastapi_server(folder, model, module="naive_agent")),
        }
        rows = interleaved(cases, repetitions=1 if options.is_quick else 5, say=say)
    ours, naive = rows["agent"], rows["naive"]
    ratios = {
        "rss_vs_naive": naive["rss_mb"] / ours["rss_mb"],
        "start_vs_naive": naive["start_s"] / ours["start_s"],
    }
    figures = {"rss_mb": ours["rss_mb"], "start_s": ours["start_s"]}
    return BenchResult("agent", rows, ratios, figures, (f"Target: rss_mb at most {RSS_MB_MAX:g}, aim 100.",))


def _measure(starting: AbstractContextManager[Server]) -> Mapping[str, float]:
    with starting as server:
        _send_requests(server)
        return {"rss_mb": server.rss_mb(), "start_s": server.started_in_s}


def _send_requests(server: Server) -> None:
    """Some traffic in batches, so that what serving allocates is there."""
    window = windows(8)
    tensor = {"name": TASK.schema.input_name, "shape": list(window.shape), "datatype": "FP32"}
    body = json.dumps({"inputs": [{**tensor, "data": window.ravel().tolist()}]})
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    try:
        for _ in range(REQUESTS):
            connection.request("POST", server.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise BenchError(f"Expected status 200 from {server.path}, got {answer.status}")
    finally:
        connection.close()
