"""The agent that was not thought about: the same jobs with everything imported at the top, and FastAPI for serving.

Without torch, which would be unfair: a device that trains has it in a process of its own with us, too.
"""

import sys

import azure.iot.device.aio
import cryptography.x509
import fastapi
import httpx
import onnxruntime
import orjson
import pandas
import pydantic
import sqlmodel
import structlog
import tuf.ngclient
import typer
import urllib3

from simulations.bench.baselines.fastapi_json import main

IMPORTED = (
    azure.iot.device.aio,
    cryptography.x509,
    fastapi,
    httpx,
    onnxruntime,
    orjson,
    pandas,
    pydantic,
    sqlmodel,
    structlog,
    tuf.ngclient,
    typer,
    urllib3,
)

if __name__ == "__main__":
    main(sys.argv[1:])
