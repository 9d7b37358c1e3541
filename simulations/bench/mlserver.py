"""MLServer 1.7.1 as a baseline: in a virtual environment of its own (it needs an older FastAPI than ours), made once.

The environment takes about 400 MB; `--without-mlserver` leaves it out. No worker pool: for a model this small it is
the faster setting of MLServer.
"""

import json
from pathlib import Path

from simulations.bench import environments

VERSION = "1.7.1"
_RUNTIME = """
import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = self.decode(payload.inputs[0], default_codec=NumpyCodec).astype(np.float32)
        name = payload.inputs[0].name
        outputs = self._session.run(None, {name: inputs})[0]
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name="output", payload=outputs)]
        )
"""


def environment_python() -> Path:
    """The interpreter of MLServer's environment, which is made where it is missing. Raises BenchError."""
    return environments.environment_python(
        f"mlserver-{VERSION}",
        installs=[[f"mlserver=={VERSION}", "onnxruntime==1.32.0"]],
        hint="Run the bench with --without-mlserver.",
    )


def write_model_folder(folder: Path, *, model: Path, name: str, host: str, port: int) -> Path:
    """What `mlserver start` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "onnx_runtime.py").write_text(_RUNTIME, encoding="utf-8")
    server = {
        "host": host,
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": 0,
        "debug": False,
        "logging_settings": {"version": 1, "root": {"level": "ERROR"}},
    }
    settings = {"name": name, "implementation": "onnx_runtime.OnnxModel", "parameters": {"uri": str(model)}}
    (folder / "settings.json").write_text(json.dumps(server), encoding="utf-8")
    (folder / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def command(python: Path, folder: Path) -> list[str]:
    return [str(python.with_name("mlserver")), "start", str(folder)]
