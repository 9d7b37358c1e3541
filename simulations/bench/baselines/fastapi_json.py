"""The baseline most people write: FastAPI, pydantic models for the protocol's bodies, JSON in and out, ONNX Runtime.

`python -m simulations.bench.baselines.fastapi_json MODEL INPUT OUTPUT HOST PORT`. One process, uvloop and httptools,
one runtime thread: everything but the framework is as in the agent.
"""

import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class TensorIn(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferIn(BaseModel):
    id: str | None = None
    inputs: list[TensorIn]


class TensorOut(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferOut(BaseModel):
    model_name: str
    id: str | None = None
    outputs: list[TensorOut]


def create_app(model: str, input_name: str, output_name: str) -> FastAPI:
    """The application around one model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/infer")
    async def infer(request: InferIn) -> InferOut:
        tensor = request.inputs[0]
        inputs = np.array(tensor.data, np.float32).reshape(tensor.shape)
        outputs = session.run([output_name], {input_name: inputs})[0]
        out = TensorOut(name=output_name, shape=list(outputs.shape), datatype="FP32", data=outputs.ravel().tolist())
        return InferOut(model_name="model", id=request.id, outputs=[out])

    return app


def main(argv: list[str]) -> None:
    model, input_name, output_name, host, port = argv
    uvicorn.run(
        create_app(model, input_name, output_name), host=host, port=int(port), access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
