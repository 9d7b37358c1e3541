"""The device's release code stays light: it runs in the one process that serves."""

import subprocess
import sys

HEAVY = ("torch", "onnxruntime", "onnx", "fastapi", "pandas", "sqlmodel", "cloud", "fleet")


def test_release_code_imports_nothing_heavy() -> None:
    program = "import sys, edge_agent.releases.installer; print(*sorted(m for m in sys.modules if '.' not in m))"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert set(HEAVY).isdisjoint(output.stdout.split())
