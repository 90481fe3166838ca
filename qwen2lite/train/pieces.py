r"""A text as numbers: hashes of its runs of words or characters, all in whole-array arithmetic.

A run's number is a polynomial of its parts' numbers, $\sum_i h_i\, c^{n-i} \bmod 2^{64}$, so the runs
of a text take n multiplications of arrays, and no run is ever cut out as a string.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from qwen2lite.train.words import words

BUCKETS = 2**16
"""Places in which a classifier counts runs; two runs that meet in one are told apart no more."""

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, and its bits look like chance


@lru_cache(maxsize=1 << 20)
def _number(word: str) -> int:
    # Not hash(): Python draws a new one in every process.
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest(), "little")


def _runs(numbers: np.ndarray, length: int) -> np.ndarray:
    total = np.zeros(max(len(numbers) - length + 1, 0), np.uint64)
    for start in range(length):
        total = total * _BASE + numbers[start : start + len(total)]
    return total


def shingles(text: str, length: int = 5) -> np.ndarray:
    """A 64-bit number for each run of `length` words, in order.

    A text with fewer words is one run, and a text without words has none.
    """
    sequence = words(text)
    numbers = np.fromiter(map(_number, sequence), np.uint64, len(sequence))
    return _runs(numbers, max(1, min(length, len(numbers))))


def word_buckets(text: str, lengths: Iterable[int] = (1, 2)) -> np.ndarray:
    """The buckets of all words and of all pairs of neighbours."""
    return _buckets([shingles(text, length) for length in lengths])


def character_buckets(text: str, lengths: Iterable[int] = (1, 2, 3, 4)) -> np.ndarray:
    """The buckets of all runs of one to four characters, with a space put at both ends."""
    signs = f" {text} ".encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(signs, "<u4").astype(np.uint64)
    return _buckets([_runs(codes + np.uint64(1), length) for length in lengths])


def _buckets(runs: list[np.ndarray]) -> np.ndarray:
    # The product's highest bits depend on all bits of the run.
    return (np.concatenate(runs) * _BASE >> np.uint64(48)).astype(np.int64)
