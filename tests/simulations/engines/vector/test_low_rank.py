"""The numbers by which low-rank steps add up are those of torch's optimizer."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.engines.port import Sgd
from simulations.engines.vector.layers.low_rank import Coefficients

rates = st.floats(0.01, 0.5)
shares = st.floats(0, 0.95)


@settings(max_examples=25, deadline=None)
@given(rate=rates, momentum=shares, decay=shares, proximal=shares, steps=st.integers(1, 6))
def test_coefficients_rebuild_what_torch_optimizes(
    rate: float, momentum: float, decay: float, proximal: float, steps: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, generator=generator, dtype=torch.float64)
    gradients = torch.randn(steps, 4, generator=generator, dtype=torch.float64)
    sgd = Sgd(rate, momentum=momentum, weight_decay=decay)
    found = Coefficients.of(sgd, steps=steps, rate=rate, proximal=proximal)
    weights = start.clone()
    optimizer = torch.optim.SGD([weights], lr=rate, momentum=momentum, weight_decay=decay)
    for step in range(steps):
        weights.grad = gradients[step] + proximal * (weights - start)
        optimizer.step()
        rebuilt = found.start[step + 1] * start - found.gradients[step + 1].double() @ gradients
        torch.testing.assert_close(rebuilt, weights, rtol=1e-4, atol=1e-5)


def test_plain_steps_weigh_alike() -> None:
    found = Coefficients.of(Sgd(0.2), steps=3, rate=0.2, proximal=0.0)
    assert found.is_constant
    torch.testing.assert_close(found.gradients, 0.2 * torch.ones(4, 3).tril(-1))
