"""Near-duplicates among 100,000 documents of 1 KB: ours beside datasketch, one thread each.

Three documents in ten are near copies of others, with 1, 2 and 4 % of the words changed; one in ten
shares a third of its text with another, which is no copy. Both sides get the same words, five to a
shingle, 128 hash functions, threshold 0.7. A copy counts as one where its exact Jaccard similarity
is at least that: changing 4 % leaves about 0.7, so those are the hard ones. Making the documents is
not timed.
"""

import random
import time
from collections.abc import Callable

import measure
import numpy as np
from datasketch import MinHash, MinHashLSH

from qwen2lite.train.damage import near_copy
from qwen2lite.train.dedup import NearCopies
from qwen2lite.train.pieces import shingles
from qwen2lite.train.words import words

DOCUMENTS, CHARACTERS, THRESHOLD, RUN = 100_000, 1000, 0.7, 5


def main() -> None:
    flags = measure.parser(__doc__)
    flags.add_argument("--documents", type=int, default=DOCUMENTS, help="default: 100,000")
    flags.set_defaults(repeats=1)
    options = flags.parse_args()
    texts, originals = corpus(options.documents)
    name = "dedup 100k" if options.documents == DOCUMENTS else f"dedup {options.documents:,}"
    speeds: dict[str, list[float]] = {"ours": [], "peer": []}
    found: dict[str, list[bool]] = {}
    for _ in range(options.repeats):
        for side, add in (("ours", ours()), ("peer", datasketch())):
            start = time.perf_counter()
            found[side] = [add(text) for text in texts]
            speeds[side].append(len(texts) / (time.perf_counter() - start))
    mine, peer = (float(np.median(speeds[side])) for side in ("ours", "peer"))
    rows = [measure.Row(name, mine, peer, "datasketch", "docs/s", mine / peer)]
    alike = [is_copy(texts, number, original) for number, original in enumerate(originals)]
    for kind, share in (("recall", recall), ("precision", precision)):
        mine, peer = (100 * share(found[side], alike) for side in ("ours", "peer"))
        rows.append(
            measure.Row(f"{name}, {kind}", mine, peer, "datasketch", "%", mine / max(peer, 1e-9))
        )
    measure.show(rows, options.json)
    if not options.json:
        own = sum(f and o is None for f, o in zip(found["ours"], originals, strict=True))
        print(
            f"ours took {len(texts) / rows[0].ours:.1f} s; of {sum(found['ours']):,} documents "
            f"dropped, {own:,} were made from no other"
        )


def corpus(count: int, seed: int = 0) -> tuple[list[str], list[int | None]]:
    """The documents, and for each the number of the one before it that it was made from."""
    rng = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(30_000)]
    # Zipf's law: the word of rank n is 1/n as common as the first.
    weights = np.cumsum(1 / np.arange(1, len(vocabulary) + 1)).tolist()
    texts: list[str] = []
    originals: list[int | None] = []
    first_ones: list[int] = []
    for number in range(count):
        kind = rng.randrange(10) if number else 9
        original = rng.choice(first_ones) if kind < 4 else None
        fresh = " ".join(rng.choices(vocabulary, cum_weights=weights, k=CHARACTERS // 6))
        if original is None:
            text = fresh
            first_ones.append(number)
        elif kind == 3:
            text = texts[original][: CHARACTERS // 3] + fresh[CHARACTERS // 3 :]
        else:
            text = near_copy(texts[original], rng, share=(0.01, 0.02, 0.04)[kind])
        texts.append(text)
        originals.append(original)
    return texts, originals


def is_copy(texts: list[str], number: int, original: int | None) -> bool:
    if original is None:
        return False
    one, other = (set(shingles(texts[place], RUN).tolist()) for place in (number, original))
    return len(one & other) >= THRESHOLD * len(one | other)


def recall(found: list[bool], alike: list[bool]) -> float:
    return sum(f and a for f, a in zip(found, alike, strict=True)) / sum(alike)


def precision(found: list[bool], alike: list[bool]) -> float:
    return sum(f and a for f, a in zip(found, alike, strict=True)) / max(1, sum(found))


def ours() -> Callable[[str], bool]:
    index = NearCopies(THRESHOLD, RUN)
    return lambda text: index.add(text) is not None


def datasketch() -> Callable[[str], bool]:
    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    kept: list[MinHash] = []

    def add(text: str) -> bool:
        sequence = words(text)
        signature = MinHash(num_perm=128)
        signature.update_batch(
            [" ".join(sequence[i : i + RUN]).encode() for i in range(len(sequence) - RUN + 1)]
        )
        if any(kept[key].jaccard(signature) >= THRESHOLD for key in lsh.query(signature)):
            return True
        lsh.insert(len(kept), signature)
        kept.append(signature)
        return False

    return add


if __name__ == "__main__":
    main()
