"""Each kernel says what torch says in double precision.

On a GPU; or, slowly and without one, in Triton's interpreter: `pip install triton`, then
`TRITON_INTERPRET=1 pytest tests/simulations/engines/cuda/test_kernels.py`.
"""

import os
from collections.abc import Iterator

import pytest
import torch

from simulations.engines.cuda import convolutions, pools, products
from simulations.engines.cuda.convolutions import Geometry
from simulations.engines.cuda.precision import Precision, using

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (torch.cuda.is_available() or IS_INTERPRETED):
    pytest.skip("no GPU, and Triton's interpreter was not asked for", allow_module_level=True)
pytest.importorskip("triton")

from simulations.engines.cuda.kernels import chance, convolution, dense, pooling, rows  # noqa: E402  # Triton may be missing

pytestmark = pytest.mark.gpu
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
CONVOLUTIONS = [
    (Geometry(), (2, 3, 32, 8, 9), 24),
    (Geometry((5, 5), (1, 1), (2, 2)), (2, 2, 1, 8, 8), 32),
    (Geometry((1, 5), (1, 2), (0, 2)), (2, 3, 6, 1, 20), 16),
    (Geometry((3, 2), (2, 1), (1, 1), (1, 2)), (2, 2, 16, 9, 9), 16),
]
WINDOWS = [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((1, 3), (1, 2), (0, 1))]


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    """The interpreter knows no products of bf16."""
    with using(Precision.IEEE if IS_INTERPRETED else Precision.FLOAT32):
        yield


def numbers(*shape: int) -> torch.Tensor:
    """Rows that lie apart, as those of a stack do."""
    size = torch.Size(shape[1:]).numel()
    return torch.randn(shape[0], size + 5, device=DEVICE)[:, :size].view(shape)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    error = (found.double().cpu() - expected).norm() / expected.norm()
    assert float(error) < 2e-6, f"relative error {float(error):.1e}"


def exact(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.double().cpu() for tensor in tensors]


@pytest.mark.parametrize(("geometry", "shape", "out"), CONVOLUTIONS)
def test_convolutions(geometry: Geometry, shape: tuple[int, ...], out: int) -> None:
    torch.manual_seed(0)
    x, bias = channels_last(numbers(*shape).relu()), numbers(shape[0], out)
    weight = numbers(shape[0], out, shape[2], *geometry.kernel)
    x64, weight64, bias64 = exact(x, weight, bias)
    y = convolutions.forward(geometry, x64, weight64, bias64, rectify=True)
    assert_near(convolution.forward(geometry, x, weight, bias, rectify=True), y)
    dy = torch.randn_like(y)
    signals = dy.float().to(DEVICE)
    dx = convolutions.input_gradient(geometry, x64, weight64, dy, mask=True)
    assert_near(convolution.input_gradient(geometry, x, weight, signals, mask=True), dx)
    convolution.add_weight_gradient(geometry, x, signals, [weight, bias])
    convolutions.add_weight_gradient(geometry, x64, dy, [weight64, bias64])
    assert_near(weight, weight64)
    assert_near(bias, bias64)


@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(10, 1500, 70), (5, 130, 10), (3, 20, 300), (40, 50, 20)])
@pytest.mark.parametrize("is_first", [False, True])
def test_dense_layers_in_place(batch: int, inputs: int, outputs: int, is_first: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = numbers(3, batch, inputs).relu().contiguous(), numbers(3, outputs, inputs), numbers(3, outputs)
    x64, weight64, bias64 = exact(x, weight, bias)
    y = products.forward(x64, weight64, bias64, rectify=True)
    assert_near(dense.forward(x, weight, bias, rectify=True), y)
    dy = torch.randn_like(y)
    dx = products.finish(weight64, [weight64, bias64], x64, dy, mask=True, is_first=is_first)
    found = dense.finish(weight, [weight, bias], x, dy.float().to(DEVICE), mask=True, is_first=is_first)
    assert_near(found, dx)
    assert_near(weight, weight64)
    assert_near(bias, bias64)


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("channels", [5, 70])
def test_pooling(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    x = channels_last(torch.randn(2, 2, channels, 9, 8, device=DEVICE).relu())
    (x64,) = exact(x)
    y64, winners64 = pools.forward(x64, kernel, stride, padding)
    y, winners = pooling.forward(x, kernel, stride, padding)
    assert_near(y, y64)
    dy = torch.randn_like(y64)
    dx = pools.backward(x64, y64, winners64, dy, kernel, stride, padding, is_rectified=True)
    signals = dy.float().to(DEVICE)
    assert_near(pooling.backward(x, y, winners, signals, kernel, stride, padding, is_rectified=True), dx)


@pytest.mark.parametrize("own", [False, True])
def test_rows_are_set_and_subtracted(own: bool) -> None:
    target, source = numbers(3, 9000), torch.randn(3, 9000, device=DEVICE)
    source = source if own else source[0]
    rows.set_rows(target, source + 1)
    rows.subtract_rows(target, source)
    torch.testing.assert_close(target, torch.ones_like(target))


def test_chance_is_each_clients_own_and_of_the_right_shape() -> None:
    seeds = torch.tensor([5, 6, 2**40], device=DEVICE)
    step = torch.tensor(3, dtype=torch.int32, device=DEVICE)
    ones = torch.ones(3, 20_000, device=DEVICE)
    together = chance.dropout(ones, 0.3, seeds, step, 1)
    assert torch.equal(together[1:], chance.dropout(ones[1:], 0.3, seeds[1:], step, 1))
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, chance.dropout(ones, 0.3, seeds, step + 1, 1))
    assert not torch.equal(together, chance.dropout(ones, 0.3, seeds, step, 2))
    torch.testing.assert_close((together > 0).float().mean(1).cpu(), torch.full((3,), 0.7), rtol=0, atol=0.015)
    noise = torch.zeros(3, 20_000, device=DEVICE)
    chance.add_normal(noise, torch.tensor([1.0, 2.0, 0.0], device=DEVICE), seeds, step, 2)
    torch.testing.assert_close(noise.std(1).cpu(), torch.tensor([1.0, 2.0, 0.0]), rtol=0.03, atol=0)
    assert float((noise[0] ** 4).mean()) == pytest.approx(3.0, abs=0.3)
