"""The models that are measured: two of McMahan et al. 2017 (arXiv:1602.05629), one of pfl-research, one for sensors."""

from collections.abc import Callable

import torch
from torch import nn

Model = Callable[[int], nn.Module]


def two_layer_net(seed: int) -> nn.Module:
    """The "2NN": two hidden layers of 200; 199,210 parameters, images `(n, 1, 28, 28)`."""
    return _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
        ),
    )


def mcmahan_cnn(seed: int) -> nn.Module:
    """Two 5x5 convolutions and a hidden layer of 512; 1,663,370 parameters, images `(n, 1, 28, 28)`."""
    return _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(3136, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
        ),
    )


def pfl_cnn(seed: int) -> nn.Module:
    """The CIFAR-10 model of pfl-research's own benchmark, dropout included; 1,626,442 parameters, `(n, 3, 32, 32)`.

    Layer by layer as `publications/pfl/compare_utils/pytorch.py` of apple/pfl-research has it, Glorot weights included.
    """
    model = _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(12544, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        ),
    )
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
    return model


def sensor_net(seed: int) -> nn.Module:
    """Activity from 1.28 s of accelerometer and gyroscope at 50 Hz: 9,406 parameters, windows `(n, 6, 64)`."""
    return _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv1d(6, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Flatten(),
            nn.Linear(256, 24),
            nn.ReLU(),
            nn.Linear(24, 6),
        ),
    )


def _seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
