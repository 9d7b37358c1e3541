import numpy as np
import pytest
import torch

from shared.compression.codec import Codec
from shared.compression.draws import seed_tensor
from shared.compression.errors import UnknownCompressionError
from shared.compression.settings import Compression
from shared.compression.shared_mask import SharedMask, is_linear
from shared.secagg.fixed_point import FixedPoint
from tests.shared.compression.cases import LAYOUT, updates

COMPRESSION = Compression.parse("random-k=0.1")
MASK = SharedMask.of(COMPRESSION, parameters=LAYOUT.size, seed=12)


def test_what_devices_send_adds_up() -> None:
    rows = updates(5)
    assert torch.allclose(MASK.restricted(rows).sum(0), MASK.restricted(rows.sum(0)), atol=1e-6)
    assert torch.allclose(MASK.expanded(MASK.restricted(rows)).sum(0), MASK.expanded(MASK.restricted(rows).sum(0)))


def test_it_is_random_k_with_one_mask_for_all() -> None:
    rows = updates(3)
    seeds = torch.tensor([1, 2, 3])
    expected = Codec(COMPRESSION, LAYOUT).round_trip(rows, seeds, masks=seed_tensor(12).expand(3))
    assert torch.equal(MASK.expanded(MASK.restricted(rows)), expected)


def test_the_sum_of_fixed_point_words_is_the_sum_of_the_updates_where_they_travelled() -> None:
    rows = updates(4)
    fixed = FixedPoint(clients_max=4, value_max=float(rows.abs().max()))
    words = [fixed.encode(MASK.restricted(row).numpy()) for row in rows]
    total = torch.from_numpy(fixed.decode(np.sum(words, axis=0, dtype=np.uint32))).float()
    expected = MASK.expanded(MASK.restricted(rows.sum(0)))
    assert torch.allclose(MASK.expanded(total), expected, atol=4 * fixed.step)
    assert len(words[0]) == round(0.1 * LAYOUT.size)


@pytest.mark.parametrize("words", ["top-k=0.1", "low-rank=2", "int8", "random-k=0.1+int4"])
def test_what_is_each_devices_own_is_refused_with_the_reason(words: str) -> None:
    compression = Compression.parse(words)
    assert not is_linear(compression)
    with pytest.raises(UnknownCompressionError, match=r"a compression that adds up, got .* own"):
        SharedMask.of(compression, parameters=10, seed=0)


def test_without_compression_everything_travels() -> None:
    rows = updates(2)
    assert torch.equal(SharedMask.of(Compression(), parameters=LAYOUT.size, seed=0).restricted(rows), rows)
