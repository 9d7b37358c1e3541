"""An operator's HTTP to some of the coordinator's routes, over a database that a test has: one call, one event loop."""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx
from fastapi import APIRouter, FastAPI

from cloud.app import create_app
from cloud.auth.nonces import Nonces
from cloud.auth.operators import ensure_first_token
from cloud.blobs.store import BlobStore
from cloud.db import SessionFactory
from cloud.pki.authority import load_or_create_authority
from cloud.releases.repository import TufRepository
from cloud.services import Services
from cloud.settings import Settings
from shared.hub.memory import MemoryHub


@dataclass(frozen=True)
class Operator:
    """Calls the application as its first operator; or as nobody, where `is_known` is false."""

    app: FastAPI
    services: Services
    token: str

    def get(self, path: str, *, is_known: bool = True) -> httpx.Response:
        return self.request("GET", path, is_known=is_known)

    def post(self, path: str, *, json: object = None, is_known: bool = True) -> httpx.Response:
        return self.request("POST", path, json=json, is_known=is_known)

    def request(self, method: str, path: str, *, json: object = None, is_known: bool = True) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if is_known else {}

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="https://coordinator") as client:
                return await client.request(method, path, json=json, headers=headers)

        return asyncio.run(call())


def open_operator(
    folder: Path, sessions: SessionFactory, parts: Iterable[APIRouter], *, clock: Callable[[], float]
) -> Operator:
    """The first operator of a coordinator on this folder; ids are `id-0`, `id-1` and so on."""
    ids = itertools.count()
    services = Services(
        settings=Settings(data_dir=folder),
        sessions=sessions,
        blobs=BlobStore(str(folder / "blobs")),
        hub=MemoryHub(Random(0)).fleet(),
        authority=load_or_create_authority(folder / "pki", now=clock()),
        nonces=Nonces(bytes(32)),
        tuf_repository=TufRepository(folder / "tuf"),
        now=clock,
        new_id=lambda: f"id-{next(ids)}",
    )
    token_file = folder / "operator.token"
    ensure_first_token(sessions, token_file, now=clock())
    return Operator(create_app(services, parts), services, token_file.read_text().strip())
