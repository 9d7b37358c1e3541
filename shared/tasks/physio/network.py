"""The network of the physio task: three convolutions with GroupNorm, and a linear head; about 12 thousand parameters.

GroupNorm and not BatchNorm: a batch statistic mixes examples, and then no example has a gradient of its own.
"""

import torch
from torch import nn

# Rounded spread of each channel over public recordings: scaling is part of the model, so a device feeds raw values.
_CHANNEL_SCALE = (0.9, 0.5, 0.5, 1.0, 2.5, 1.0)
_DISTURBANCE = 0.2


class PhysioNet(nn.Module):
    """Logits `(n, 7)` of windows `(n, 6, 100)`; in training mode the windows are disturbed first."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(_CHANNEL_SCALE).reshape(1, 6, 1), persistent=False)
        self.body = nn.Sequential(
            *_block(6, 24, kernel=7),
            nn.MaxPool1d(2),
            *_block(24, 32, kernel=5),
            nn.MaxPool1d(2),
            *_block(32, 48, kernel=5),
        )
        # Without weights of its own: the rounds train the head alone, and on features of one size it learns faster.
        self.normalise = nn.LayerNorm(48, elementwise_affine=False)
        self.head = nn.Linear(48, 7)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        scaled = windows / self.scale
        hidden: torch.Tensor = self.body(_disturbed(scaled) if self.training else scaled)
        logits: torch.Tensor = self.head(self.normalise(hidden.mean(dim=2)))
        return logits


def _disturbed(windows: torch.Tensor) -> torch.Tensor:
    """Each channel of each window with a gain and an offset of its own, as another watch on another wrist has them."""
    gain, offset = _DISTURBANCE * torch.randn(2, *windows.shape[:2], 1, device=windows.device)
    disturbed: torch.Tensor = windows * (1 + gain) + offset
    return disturbed


def _block(inputs: int, outputs: int, *, kernel: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
    return convolution, nn.GroupNorm(8, outputs), nn.ReLU()
