"""Each bench runs, in a mode too short to mean anything, and ends with its line for programs."""

import json
import os
import shutil
import subprocess
import sys

import psutil
import pytest

from shared.exit_codes import ExitCode
from simulations.bench.__main__ import main
from simulations.bench.frame import interleaved, medians
from simulations.bench.load_client import _answer_bytes
from simulations.demo.processes import fleetlearn
from tests.support.waiting import wait_until


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "ratios"),
    [
        ("agent", {"rss_vs_naive", "start_vs_naive"}),
        ("aggregation", {"memory_vs_flower", "cpu_vs_flower"}),
        ("dp", {"dp_step_vs_ghost_2nn_b64", "dp_step_vs_secure_ghost_2nn_b64"}),
        ("fleet", set()),
        ("population", {"set_up_1e7_vs_listed_1e5"}),
        ("training", set()),
        ("serve", {"json_rps_vs_fastapi_json", "binary_rps_vs_fastapi_json"}),
    ],
)
def test_a_short_run_ends_with_one_object(name: str, ratios: set[str]) -> None:
    command = [sys.executable, "-m", "simulations.bench", name, "--quick", "--json", "--without-mlserver"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bench"] == name
    assert set(result["ratios"]) == ratios
    assert all(value > 0 for value in (result["ratios"] | result["figures"]).values())


@pytest.mark.processes
@pytest.mark.skipif(
    shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None and "CI" not in os.environ,
    reason="mosquitto is not installed",
)
def test_a_short_run_of_the_hub_counts_every_acknowledged_event() -> None:
    command = [sys.executable, "-m", "simulations.bench", "hub", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ratios"]["durable_rate_vs_mosquitto"] > 0
    assert {"durable_events_per_s", "idle_2000_mb", "method_p50_ms"} <= set(result["figures"])


@pytest.mark.processes
def test_a_bench_that_is_told_to_end_leaves_no_process() -> None:
    command = fleetlearn("bench", "training", "--quick")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
        me = psutil.Process(bench.pid)
        wait_until(lambda: bool(me.children()), timeout_s=60)
        family = me.children(recursive=True)
        bench.terminate()
        assert bench.wait(timeout=60) == ExitCode.INTERRUPTED
    _, left = psutil.wait_procs(family, timeout=20)
    assert not left


@pytest.mark.processes
def test_a_short_run_of_compression_finds_fewer_bytes() -> None:
    command = [sys.executable, "-m", "simulations.bench", "compression", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    ratios = json.loads(done.stdout.splitlines()[-1])["ratios"]
    # int8 learns as updates in full do, so its ratio is that of the bytes; others may need more than ten rounds.
    assert 2 < ratios["bytes_to_accuracy_int8"] < 6
    assert ratios["encode_vs_numpy_top-k=0.05"] > 0


def test_repetitions_take_turns_and_give_medians() -> None:
    order: list[str] = []

    def case(name: str, figures: list[float]) -> dict[str, float]:
        order.append(name)
        return {"rps": figures[order.count(name) - 1]}

    cases = {"ours": lambda: case("ours", [1, 9, 2]), "baseline": lambda: case("baseline", [5, 5, 5])}
    rows = interleaved(cases, repetitions=3, say=lambda _: None)
    assert order == ["ours", "baseline"] * 3
    assert rows == {"ours": {"rps": 2}, "baseline": {"rps": 5}}
    assert medians([{"a": 1.0}, {"a": 3.0}]) == {"a": 2.0}


def test_an_unknown_bench_is_a_wrong_command_line() -> None:
    assert main(["nothing"]) == 2


def test_an_answer_is_whole_when_its_body_is() -> None:
    assert _answer_bytes(b"HTTP/1.1 200 OK\r\nContent-Len") == 0
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n"
    assert _answer_bytes(head + b"ab") == len(head) + 5
