"""What the runtime can serve is asked once, kept by its version, and known without loading it."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from edge_agent.serving.runtime import KnownRuntime, known_runtime


def test_what_is_kept_is_what_the_runtime_says(tmp_path: Path) -> None:
    kept = tmp_path / "runtime.json"
    found = known_runtime(kept)
    assert found == KnownRuntime.of_this_process()
    assert json.loads(kept.read_bytes()) == {"version": found.version, "opset_max": found.opset_max}


def test_another_version_or_a_damaged_file_is_asked_anew(tmp_path: Path) -> None:
    kept = tmp_path / "runtime.json"
    for content in ("not json", json.dumps({"version": "0.1", "opset_max": 99}), json.dumps({"version": 1})):
        kept.write_text(content)
        assert known_runtime(kept).opset_max < 99


def test_a_device_that_asked_before_does_not_load_the_runtime(tmp_path: Path) -> None:
    kept = tmp_path / "runtime.json"
    kept.write_text(json.dumps({"version": version("onnxruntime"), "opset_max": 42}))
    program = (
        "import sys; from pathlib import Path; from edge_agent.serving.runtime import known_runtime;"
        "print(known_runtime(Path(sys.argv[1])).opset_max, 'onnxruntime' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program, str(kept)], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["42", "False"]
