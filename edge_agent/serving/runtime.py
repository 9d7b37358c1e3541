"""What this device's ONNX Runtime can serve, known without loading it: asked once in a process of its own, and kept.

The runtime takes 25 MB for as long as a process lives; a device that serves nothing yet does without. The answer is
kept by the runtime's version, so an upgrade asks anew.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_agent.serving.opset import opset_max
from edge_agent.serving.session import runtime_version
from shared.files import write_atomically

_ASK_S = 60.0
_PACKAGE = "onnxruntime"


@dataclass(frozen=True)
class KnownRuntime:
    """A runtime's version, and the newest operator set that it loads."""

    version: str
    opset_max: int

    @classmethod
    def of_this_process(cls) -> "KnownRuntime":
        """Loads the runtime."""
        return cls(runtime_version(), opset_max())


def known_runtime(kept: Path) -> KnownRuntime:
    """The installed runtime, as kept in this file or asked now: in another process, or in this one if it must be."""
    installed = _installed_version()
    if (found := _read(kept)) is not None and found.version == installed:
        return found
    found = _asked() or KnownRuntime.of_this_process()
    write_atomically(kept, json.dumps(asdict(found)).encode())
    return found


def _installed_version() -> str:
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:  # it may come in a package of another name, for another processor
        return runtime_version()


def _read(kept: Path) -> KnownRuntime | None:
    try:
        found = json.loads(kept.read_bytes())
        return KnownRuntime(str(found["version"]), int(found["opset_max"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _asked() -> KnownRuntime | None:
    command = [sys.executable, "-m", "edge_agent.serving.runtime"]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_ASK_S, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        return KnownRuntime(**found)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError):
        return None


if __name__ == "__main__":
    print(json.dumps(asdict(KnownRuntime.of_this_process())))
