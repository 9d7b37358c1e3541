import pytest
import torch

from shared.compression.codec import Codec, decode
from shared.compression.error_feedback import encode_with_feedback, round_trip_with_feedback
from shared.compression.settings import Compression
from tests.shared.compression.cases import ALL, LAYOUT, updates


@pytest.mark.parametrize("compression", [one for one in ALL if one.has_feedback], ids=str)
def test_all_that_was_received_is_all_updates_less_the_last_residual(compression: Compression) -> None:
    codec, clients = Codec(compression, LAYOUT), 3
    residuals = received_sum = updates_sum = torch.zeros(clients, LAYOUT.size)
    for number in range(30):
        deltas = updates(clients, seed=number)
        received, residuals = round_trip_with_feedback(codec, deltas, residuals, torch.arange(clients) + 10 * number)
        received_sum, updates_sum = received_sum + received, updates_sum + deltas
    assert torch.allclose(received_sum + residuals, updates_sum, atol=1e-4)
    assert not torch.allclose(received_sum, updates_sum, atol=1e-4)


@pytest.mark.parametrize("words", ["top-k=0.1", "random-k=0.1", "low-rank=2", "top-k=0.1+int4", "int4+feedback"])
def test_the_residual_of_a_steady_update_stays_bounded(words: str) -> None:
    codec, deltas = Codec(Compression.parse(words), LAYOUT), updates(2)
    residuals, norms = torch.zeros_like(deltas), []
    for number in range(300):
        _, residuals = round_trip_with_feedback(codec, deltas, residuals, torch.tensor([number, -number]))
        norms.append(float((residuals.norm(dim=1) / deltas.norm(dim=1)).max()))
    assert max(norms[200:]) < 1.3 * max(norms[50:150]) + 0.1


def test_bytes_and_rows_keep_the_same_residual() -> None:
    codec = Codec(Compression.parse("top-k=0.1+int8"), LAYOUT)
    delta, residual = updates(2)
    payload, after = encode_with_feedback(codec, delta, residual, seed=4)
    received, expected = round_trip_with_feedback(codec, delta[None], residual[None], torch.tensor([4]))
    assert torch.equal(after, expected[0])
    assert torch.equal(decode(payload, LAYOUT), received[0])


def test_an_update_that_diverged_leaves_the_residual_as_it_was() -> None:
    codec, deltas, residuals = Codec(Compression.parse("top-k=0.1"), LAYOUT), updates(2), updates(2, seed=1)
    deltas[1, 3] = float("nan")
    received, after = round_trip_with_feedback(codec, deltas, residuals, torch.tensor([1, 2]))
    assert received[1].isnan().all()
    assert torch.equal(after[1], residuals[1])
    assert not torch.equal(after[0], residuals[0])
