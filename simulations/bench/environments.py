"""Virtual environments for peers whose dependencies do not fit beside ours: each is made once and kept.

They lie in `$XDG_CACHE_HOME/fleetlearn/` (or `~/.cache/fleetlearn/`).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from simulations.bench.errors import BenchError

INSTALL_S = 900.0


def environment_python(name: str, *, installs: Sequence[Sequence[str]], hint: str) -> Path:
    """The interpreter of the environment, which is made where it is missing.

    Args:
        name: Of its folder: peer and version.
        installs: Packages of each `pip install`, in order (torch comes first, so that nothing else chooses its build).
        hint: What to do without it.

    Raises:
        BenchError: It could not be made.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "fleetlearn" / name
    python, stamp = folder / "bin" / "python", folder / "complete"
    if stamp.exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], hint=hint)
    for packages in installs:
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], hint=hint)
    stamp.touch()
    return python


def _run(arguments: list[str], *, hint: str) -> None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"Expected {arguments[2]} within {INSTALL_S:g} s, got no end", hint=hint) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1][:300]
        raise BenchError(f"Expected {' '.join(arguments[1:])[:80]} to succeed, got: {last}", hint=hint)
