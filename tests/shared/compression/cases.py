"""Compressions and updates that several tests share."""

import torch

from shared.compression.draws import dither, seed_tensor
from shared.compression.settings import Compression
from shared.layout import Layout

LAYOUT = Layout(("conv", "bias", "dense", "scale"), ((6, 2, 3, 3), (6,), (20, 30), ()))
WORDS = (
    "float32",
    "float16",
    "int8",
    "int4",
    "top-k=0.05",
    "top-k=0.1+int8",
    "top-k=0.1+int4+no-feedback",
    "random-k=0.05",
    "random-k=0.2+float16+no-feedback",
    "low-rank=2",
    "low-rank=3+int8",
)
ALL = [Compression.parse(words) for words in WORDS]


def updates(clients: int, seed: int = 7, layout: Layout = LAYOUT) -> torch.Tensor:
    """Rows of different magnitudes, the same on every machine."""
    rows = torch.arange(clients) + seed_tensor(seed)
    return (dither(rows, 0, layout.size) - 0.5) * torch.logspace(-3, 1, clients)[:, None]
