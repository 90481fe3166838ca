r"""Duplicates: the same text twice, exactly or nearly.

`without_copies` drops equal texts. `without_near_copies` drops those that share most of their
phrases with a text before them: MinHash shrinks a text to 128 numbers in which similarity survives,
and locality-sensitive hashing finds similar ones without comparing each text with each.

Both pass a stream through once and keep the first of its kind.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from qwen2lite.train.corpus import Document
from qwen2lite.train.pieces import shingles
from qwen2lite.train.words import normalise

_BLOCK = 1024  # shingles hashed at once: 128 × 1,024 numbers of 8 bytes stay in the cache


def without_copies(documents: Iterable[Document]) -> Iterator[Document]:
    """Drops documents whose normalised text came before; remembers 16 bytes of each."""
    seen: set[bytes] = set()
    for document in documents:
        text = normalise(document.text).encode("utf-8", "surrogatepass")
        fingerprint = hashlib.blake2b(text, digest_size=16).digest()
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield document


def without_near_copies(
    documents: Iterable[Document], index: "NearCopies | None" = None
) -> Iterator[Document]:
    """Drops documents that nearly repeat one that was kept.

    Args:
        documents: any stream.
        index: what counts as near, and what was kept before; None starts a new `NearCopies()`.
    """
    index = index or NearCopies()
    return (document for document in documents if index.add(document.text) is None)


class MinHash:
    r"""Signatures: two texts agree in a share of the numbers that estimates their similarity.

    Each of the hash functions orders all possible shingles anew and keeps the smallest one of the
    text. The first of the *union* of two texts is in both with probability
    $|A \cap B| / |A \cup B|$, the Jaccard similarity: so often do their numbers agree.
    The standard error of the estimate is $\sqrt{J(1-J)/128} \le 0.045$.

    Args:
        size: hash functions, numbers in a signature.
        seed: of the hash functions; only signatures of one seed can be compared.

    Source: Broder, On the resemblance and containment of documents, 1997.
    """

    def __init__(self, size: int = 128, seed: int = 0):
        generator = np.random.default_rng(seed)
        # Odd, so that multiplying shuffles the 64-bit numbers without losing any.
        self.factors = generator.integers(2**64, size=(size, 1), dtype=np.uint64) | np.uint64(1)

    def __call__(self, runs: np.ndarray) -> np.ndarray:
        """The signature of a text's shingles: their high halves are compared, 32 bits each."""
        smallest = np.full(len(self.factors), np.iinfo(np.uint64).max)
        for start in range(0, len(runs), _BLOCK):
            block = (self.factors * runs[start : start + _BLOCK]).min(axis=1)
            smallest = np.minimum(smallest, block)
        return (smallest >> np.uint64(32)).astype(np.uint32)


def rows_per_band(threshold: float, size: int = 128, recall: float = 0.98) -> int:
    r"""How many numbers of a signature make a band, so that a similar pair is rarely overlooked.

    Two texts of similarity s share a whole band of r numbers with probability $s^r$, and at least
    one of size/r bands with $1 - (1 - s^r)^{size/r}$: an S-curve over s, steeper for a larger r.
    The largest r is taken with which a pair just at the threshold is found with `recall`.
    """
    fits = (r for r in range(size, 1, -1) if 1 - (1 - threshold**r) ** (size // r) >= recall)
    return next(fits, 1)


class NearCopies:
    """The texts that were kept, by the bands of their signatures.

    A bucket remembers only the first text that fell into it, so a text costs at most one comparison
    a band, however common its phrases are. Keeping a text takes about 4 KB, whatever its length.

    Args:
        threshold: Jaccard similarity of the shingles from which on a text is a near copy. With
            runs of five words one changed word in 50 leaves about 0.8, one in 25 about 0.7.
        run: words in a shingle.
        size: numbers in a signature.
        seed: of the hash functions.

    Raises:
        ValueError: a threshold outside 0 … 1.

    Source: bands: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.
    """

    def __init__(self, threshold: float = 0.7, run: int = 5, size: int = 128, seed: int = 0):
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}; a similarity lies above 0 and up to 1")
        self.threshold, self.run = threshold, run
        self.min_hash = MinHash(size, seed)
        self.rows = rows_per_band(threshold, size)
        self.signatures: list[np.ndarray] = []
        self.buckets: list[dict[bytes, int]] = [{} for _ in range(size // self.rows)]

    def add(self, text: str) -> int | None:
        """Keeps a text, unless it nearly repeats a kept one: then returns that one's number.

        Numbers count the kept texts from 0. A text without words is like no other and not counted.
        """
        runs = shingles(text, self.run)
        if not len(runs):
            return None
        signature = self.min_hash(runs)
        bands = signature[: len(self.buckets) * self.rows].reshape(-1, self.rows)
        keys = bands.view(f"V{bands.itemsize * self.rows}").ravel().tolist()
        neighbours = {
            bucket[key] for bucket, key in zip(self.buckets, keys, strict=True) if key in bucket
        }
        for number in sorted(neighbours):
            if np.mean(self.signatures[number] == signature) >= self.threshold:
                return number
        for bucket, key in zip(self.buckets, keys, strict=True):
            bucket.setdefault(key, len(self.signatures))
        self.signatures.append(signature)
        return None
