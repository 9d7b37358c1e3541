"""Random numbers that are a pure function of a seed and some integers: no state, no order, any client alone.

A population of ten million clients cannot keep a generator each, and a round must draw the same for a client whoever
else is in it. So each number is a hash: a seed names a `Stream`, and `stream.uniform(client, round)` is the same
whenever it is asked for, in whatever company. Vectorised over numpy arrays, which broadcast.

The hash is the output function of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195), a bijection of 64
bits, chained over the integers. Good enough for experiments, and for nothing else: it is not cryptography, and no
promise of privacy may rest on it.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bits = NDArray[np.uint64]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_FLOAT = 2.0**-53
_WIDTH_MIN = 6
# A Feistel network of fewer bits favours some permutations visibly.


@dataclass(frozen=True)
class Stream:
    """One source of numbers; streams of other seeds or names have nothing to do with it.

    >>> Stream.named(7, "speed").uniform([3, 4]).round(3).tolist()
    [0.211, 0.907]
    """

    key: np.uint64

    @staticmethod
    def named(seed: int, name: str) -> "Stream":
        """The stream of this name under the seed."""
        words = np.array([seed & 0xFFFFFFFFFFFFFFFF, zlib.crc32(name.encode())], np.uint64)
        return Stream(np.uint64(_chain(_chain(_GOLDEN, words[0]), words[1])))

    def bits(self, *index: ArrayLike) -> Bits:
        """64 random bits for each index; the integers of an index broadcast against each other."""
        state: Bits | np.uint64 = self.key
        for word in index:
            state = _chain(state, np.asarray(word).astype(np.uint64, copy=False))
        return np.asarray(state)

    def uniform(self, *index: ArrayLike) -> Floats:
        """In the open interval (0, 1): its logarithm is finite."""
        return _uniform(self.bits(*index))

    def normal(self, *index: ArrayLike) -> Floats:
        """Standard normal (Box and Muller 1958)."""
        return _normal(self.bits(*index))

    def seeds(self, *index: ArrayLike) -> NDArray[np.int64]:
        """Non-negative seeds for other generators."""
        return (self.bits(*index) >> np.uint64(1)).astype(np.int64)

    def permuted(self, position: ArrayLike, size: ArrayLike, *index: ArrayLike) -> NDArray[np.int64]:
        """Where a random permutation of `0 .. size - 1` sends a position; another permutation for each index.

        A Feistel network of six rounds (Luby and Rackoff 1988) on the next power of two, walked until it falls inside
        (Black and Rogaway 2002): no table, so one place of a permutation of ten million costs what it costs of ten.
        """
        shape = np.broadcast_shapes(np.shape(position), np.shape(size), *map(np.shape, index))
        place, sizes, keys = (
            np.broadcast_to(np.asarray(values, np.uint64), shape).ravel()
            for values in (position, size, self.bits(*index))
        )
        place = place.copy()
        width = np.maximum(np.ceil(np.log2(sizes.astype(np.float64))), _WIDTH_MIN).astype(np.uint64)
        outside = np.arange(len(place))
        while len(outside):
            place[outside] = _feistel(place[outside], width[outside], keys[outside])
            outside = outside[place[outside] >= sizes[outside]]
        return place.astype(np.int64).reshape(shape)

    def log_gamma(self, shape: ArrayLike, *index: ArrayLike) -> Floats:
        """Logarithms of Gamma(shape, 1) variates: a small shape's variates underflow, their logarithms do not.

        Marsaglia and Tsang 2000 (doi:10.1145/358407.358414) at shape + 1, and their boost `G(a) = G(a + 1) U^(1/a)`.
        """
        keys, shapes = np.broadcast_arrays(self.bits(*index), np.asarray(shape, np.float64))
        found: Floats = _log_gamma_above_one(keys.ravel(), shapes.ravel() + 1.0).reshape(keys.shape)
        boosts: Floats = np.log(_uniform(_chain(keys, np.uint64(0)))) / shapes
        return found + boosts

    def dirichlet(self, concentration: ArrayLike, client: ArrayLike) -> Floats:
        """For each client a point of the simplex, `(clients, classes)`.

        Args:
            concentration: `(classes,)`, above 0; a class with concentration 0 gets nothing.
            client: `(clients,)`.
        """
        weights = np.asarray(concentration, np.float64)
        client = np.asarray(client)[:, None]
        logs = np.full((len(client), len(weights)), -np.inf)
        used = np.flatnonzero(weights > 0)
        logs[:, used] = self.log_gamma(weights[used], client, used)
        parts = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares: Floats = parts / parts.sum(axis=1, keepdims=True)
        return shares


def _uniform(bits: Bits) -> Floats:
    values: Floats = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * _FLOAT
    return values


def _normal(bits: Bits) -> Floats:
    radius = np.sqrt(-2.0 * np.log(_uniform(_chain(bits, np.uint64(0)))))
    values: Floats = radius * np.cos(2.0 * np.pi * _uniform(_chain(bits, np.uint64(1))))
    return values


def _log_gamma_above_one(keys: Bits, shapes: Floats) -> Floats:
    """Marsaglia and Tsang 2000, figure 1; shapes above 1. Some 97 % are accepted in each turn."""
    found = np.empty(len(keys))
    pending, turn = np.arange(len(keys)), 0
    while len(pending):
        turn += 1
        key = _chain(keys[pending], np.uint64(turn))
        d = shapes[pending] - 1 / 3
        x = _normal(_chain(key, np.uint64(0)))
        v = (1 + x / np.sqrt(9 * d)) ** 3
        with np.errstate(divide="ignore", invalid="ignore"):
            log_v = np.log(v)  # of a negative v: NaN, which is not accepted
        accepted = np.log(_uniform(_chain(key, np.uint64(1)))) < x * x / 2 + d * (1 - v + log_v)
        found[pending[accepted]] = (np.log(d) + log_v)[accepted]
        pending = pending[~accepted]
    return found


def _feistel(value: Bits, width: Bits, key: Bits) -> Bits:
    """A permutation of `0 .. 2^width - 1`; the halves trade places, and where they differ in width also widths."""
    low = width // np.uint64(2)
    high = width - low
    one = np.uint64(1)
    for turn in range(6):
        left, right = value >> low, value & ((one << low) - one)
        left = left ^ (_chain(key + np.uint64(turn), right) & ((one << high) - one))
        value = np.asarray((right << high) | left)
        low, high = high, low
    return value


def _chain(state: Bits | np.uint64, word: Bits | np.uint64) -> Bits:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what is wanted
        mixed = np.asarray((state + _GOLDEN) ^ (word * _MIX_2))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))
