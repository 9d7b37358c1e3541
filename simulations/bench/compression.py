"""`fleetlearn bench compression`: bytes to the same accuracy for each compression, and what encoding costs.

Real federated rounds of the digits task, in the round loop of experiments and with the codecs that devices use. What
counts are the bytes until a compression first reaches most of what updates in full achieve. Encoding and decoding are
measured on an update of 1.66 million numbers, beside the plain numpy that one would write first.
"""

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from shared.compression.codec import Codec, decode
from shared.compression.settings import Compression
from shared.layout import Layout
from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved
from simulations.experiments.experiment import Experiment
from simulations.experiments.run import run as run_experiment

FULL = "float32"
COMPRESSIONS = (
    FULL,
    "float16",
    "int8",
    "int4",
    "top-k=0.05",
    "top-k=0.01+int8",
    "random-k=0.1",
    "low-rank=2+int8",
)
QUICK = (FULL, "int8", "top-k=0.05")
TARGET = 0.95
"""Of the accuracy that updates in full end with."""
CLIENTS, COHORT, ROUNDS, SEEDS = 20, 10, 60, (0, 1)
# McMahan et al. 2017's network for MNIST: 1,663,370 numbers.
LARGE = Layout(
    ("conv1", "bias1", "conv2", "bias2", "dense", "bias3", "head", "bias4"),
    ((32, 1, 5, 5), (32,), (64, 32, 5, 5), (64,), (512, 3136), (512,), (10, 512), (10,)),
)


@dataclass(frozen=True)
class Learned:
    """What one compression's rounds achieved, seed by seed."""

    accuracies: NDArray[np.float64]
    """On test data after each round, `(seeds, rounds + 1)`."""
    bytes_up: float
    """Of one client in one round."""

    def rounds_to(self, target: float) -> float:
        """Rounds until the accuracy is first there, mean over the seeds; infinite where a seed never is."""
        return fmean(float(np.argmax(row >= target)) if (row >= target).any() else np.inf for row in self.accuracies)


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Learns with each compression, then measures its codec."""
    torch.set_num_threads(1)
    chosen = QUICK if options.is_quick else COMPRESSIONS
    learned = {words: _learn(words, options, say) for words in chosen}
    target = TARGET * float(learned[FULL].accuracies[:, -5:].mean())
    costs = interleaved(_codec_cases(chosen), repetitions=3 if options.is_quick else 15, say=say)
    rows = {words: {**_row(one, learned[FULL], target), **costs[words]} for words, one in learned.items()}
    reached = [words for words in chosen if words != FULL and rows[words]["fewer_to_target"] > 0]
    ratios = {f"bytes_to_accuracy_{words}": rows[words]["fewer_to_target"] for words in reached}
    ratios |= {
        f"encode_vs_numpy_{words}": costs[f"numpy {words}"]["encode_ms"] / costs[words]["encode_ms"]
        for words in ("int8", "top-k=0.05")
    }
    rows |= {name: figures for name, figures in costs.items() if name not in rows}
    notes = (
        f"{COHORT} of {CLIENTS} clients a round, {ROUNDS} rounds at most, {len(SEEDS)} seeds; 2NN on digits.",
        f"Target accuracy: {target:.3f}, {TARGET:.0%} of what updates in full end with. inf: not reached.",
        f"Codec times: {LARGE.size:,} numbers, one thread, milliseconds of CPU.",
    )
    figures = {"target_accuracy": target} | {f"bytes_a_round_{words}": one.bytes_up for words, one in learned.items()}
    return BenchResult("compression", rows, ratios, figures, notes)


def _learn(words: str, options: BenchOptions, say: Say) -> Learned:
    say(f"{words}: learning")
    experiment = Experiment.model_validate(
        {
            "data": "digits",
            "model": {"kind": "mlp"},
            "population": {"clients": CLIENTS},
            "cohort": {"clients": COHORT},
            "rounds": 10 if options.is_quick else ROUNDS,
            "compression": words,
            "local": {"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 0.1}},
            "seeds": SEEDS[:1] if options.is_quick else SEEDS,
        }
    )
    metrics = run_experiment(experiment).metrics
    by_seed = [metrics.of_seed(seed) for seed in metrics.seeds]
    accuracies = np.stack([columns["test_accuracy"] for columns in by_seed])
    return Learned(accuracies, bytes_up=float(by_seed[0]["bytes_up"][-1]) / COHORT)


def _row(one: Learned, full: Learned, target: float) -> Mapping[str, float]:
    rounds = one.rounds_to(target)
    return {
        "kB_a_round": one.bytes_up / 1e3,
        "fewer": full.bytes_up / one.bytes_up,
        "last_accuracy": float(one.accuracies[:, -1].mean()),
        "rounds": rounds,
        "MB_to_target": one.bytes_up * rounds / 1e6,
        "fewer_to_target": full.bytes_up * full.rounds_to(target) / (one.bytes_up * rounds),
    }


def _codec_cases(chosen: tuple[str, ...]) -> dict[str, Measure]:
    delta = torch.randn(LARGE.size, generator=torch.Generator().manual_seed(0)) * 0.01
    cases = {words: _codec_case(words, delta) for words in chosen}
    plain, k = delta.numpy(), round(0.05 * LARGE.size)
    cases["numpy int8"] = lambda: {"encode_ms": _milliseconds(lambda: _plain_int8(plain))}
    cases["numpy top-k=0.05"] = lambda: {"encode_ms": _milliseconds(lambda: _plain_top_k(plain, k))}
    return cases


def _codec_case(words: str, delta: torch.Tensor) -> Measure:
    codec = Codec(Compression.parse(words), LARGE)
    payload = codec.encode(delta, seed=1)
    return lambda: {
        "encode_ms": _milliseconds(lambda: codec.encode(delta, seed=1)),
        "decode_ms": _milliseconds(lambda: decode(payload, LARGE)),
    }


def _plain_int8(delta: NDArray[np.float32]) -> bytes:
    """QSGD with one scale, as its formula reads."""
    scale = np.abs(delta).max()
    chance = np.random.default_rng(0).random(len(delta), dtype=np.float32)
    codes = np.floor(delta / scale * 127 + chance).astype(np.int8)
    packed: bytes = codes.tobytes()
    return struct.pack("<f", scale) + packed


def _plain_top_k(delta: NDArray[np.float32], k: int) -> bytes:
    """The largest k, with int32 positions."""
    places = np.sort(np.argpartition(np.abs(delta), len(delta) - k)[-k:])
    packed: bytes = places.astype(np.int32).tobytes() + delta[places].tobytes()
    return packed


def _milliseconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1e3
