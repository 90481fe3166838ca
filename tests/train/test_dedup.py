"""Signatures estimate the Jaccard similarity; planted copies are found, and few others."""

import random
import statistics

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite.train.corpus import Document
from qwen2lite.train.damage import near_copy
from qwen2lite.train.dedup import (
    MinHash,
    NearCopies,
    rows_per_band,
    without_copies,
    without_near_copies,
)
from qwen2lite.train.pieces import shingles

WORDS = [f"w{number}" for number in range(3000)]


def texts(*contents):
    return [Document(content, "test") for content in contents]


def jaccard(first, second):
    one, other = set(shingles(first).tolist()), set(shingles(second).tolist())
    return len(one & other) / len(one | other)


def pair(similarity, size, seed):
    """Two sets of numbers, each of `size`, whose Jaccard similarity is as near as can be."""
    numbers = np.random.default_rng(seed).integers(2**64, size=2 * size, dtype=np.uint64)
    common = round(2 * size * similarity / (1 + similarity))
    one, other = (
        numbers[:size],
        np.concatenate([numbers[:common], numbers[size : 2 * size - common]]),
    )
    return one, other, common / (2 * size - common)


def test_copies_go_whatever_their_case_and_spaces():
    documents = texts("One  text.", "another", "one\ntext.", "One text", "ONE TEXT.")
    kept = [document.text for document in without_copies(documents)]
    assert kept == ["One  text.", "another", "One text"]
    assert len(list(without_copies(texts("half \ud83d", "half \ud83d")))) == 1


@pytest.mark.parametrize("similarity", [0.1, 0.5, 0.7, 0.9])
def test_signatures_agree_as_often_as_the_sets_are_alike(similarity):
    """Mean and spread over 200 pairs are those of a share of 128 fair draws."""
    min_hash, shares = MinHash(), []
    for seed in range(200):
        one, other, true = pair(similarity, 150, seed)
        shares.append(float(np.mean(min_hash(one) == min_hash(other))))
    deviation = (true * (1 - true) / 128) ** 0.5
    assert abs(statistics.mean(shares) - true) < 4 * deviation / 200**0.5
    assert 0.8 < statistics.stdev(shares) / deviation < 1.25


def test_estimates_are_as_good_as_datasketch():
    """Over 60 pairs of texts, the same shingles: errors of the same size."""
    min_hash, rng, errors, theirs = MinHash(), random.Random(0), [], []
    for _ in range(60):
        text = " ".join(rng.choices(WORDS, k=150))
        copy = near_copy(text, rng, share=rng.choice([0.01, 0.03, 0.1]))
        true, both = jaccard(text, copy), [shingles(text), shingles(copy)]
        errors.append(float(np.mean(min_hash(both[0]) == min_hash(both[1]))) - true)
        signatures = [datasketch.MinHash(num_perm=128) for _ in both]
        for signature, runs in zip(signatures, both, strict=True):
            signature.update_batch([number.tobytes() for number in runs])
        theirs.append(signatures[0].jaccard(signatures[1]) - true)
    assert statistics.pstdev(errors) < 1.3 * statistics.pstdev(theirs)
    assert abs(statistics.mean(errors)) < 0.015


def test_the_smallest_of_a_union_is_the_smaller_of_the_two():
    one, other, _ = pair(0.3, 2000, 0)  # more than one block
    min_hash = MinHash(size=16)
    union = min_hash(np.concatenate([one, other]))
    assert (union == np.minimum(min_hash(one), min_hash(other))).all()
    assert (min_hash(one[::-1]) == min_hash(one)).all()


def test_without_independent_functions_the_estimate_is_worthless():
    """The same function 128 times: the share is 0 or 1, never in between."""
    min_hash = MinHash()
    min_hash.factors[:] = min_hash.factors[0]
    shares = {float(np.mean(min_hash(a) == min_hash(b))) for a, b, _ in map(pair_at_half, range(9))}
    assert shares == {0.0, 1.0}


def pair_at_half(seed):
    return pair(0.5, 100, seed)


@pytest.mark.parametrize(("threshold", "rows"), [(0.5, 3), (0.7, 5), (0.8, 7), (0.9, 11), (1, 128)])
def test_rows_by_the_formula(threshold, rows):
    """0.7: 1 − (1 − 0.7⁵)²⁵ = 0.990, and with six rows 1 − (1 − 0.7⁶)²¹ = 0.928."""

    def chance(count):
        return 1 - (1 - threshold**count) ** (128 // count)

    assert rows_per_band(threshold) == rows
    assert chance(rows) >= 0.98
    assert all(chance(more) < 0.98 for more in range(rows + 1, 129))


def planted(count, seed=0):
    """Texts of 150 words, and for every second one a copy with 2 % of its words changed."""
    rng = random.Random(seed)
    originals = [" ".join(rng.choices(WORDS, k=150)) for _ in range(count)]
    return originals, [near_copy(text, rng) for text in originals[::2]]


def test_planted_copies_are_found_and_nothing_else():
    originals, copies = planted(600)
    index = NearCopies()
    assert all(index.add(text) is None for text in originals)
    found = [index.add(text) for text in copies]
    right = sum(number == 2 * place for place, number in enumerate(found))
    assert right >= 0.97 * len(copies)
    assert sum(number is not None for number in found) == right


def test_a_shared_third_is_no_copy():
    originals, _ = planted(200)
    index = NearCopies()
    for text in originals:
        index.add(text)
    halves = [text[: len(text) // 3] + other for text, other in zip(originals, WORDS, strict=False)]
    mixed = [half + planted(1, seed)[0][0] for seed, half in enumerate(halves, 1)]
    assert [index.add(text) for text in mixed] == [None] * len(mixed)


def test_an_index_without_bands_finds_nothing():
    """The wrong version: the whole signature as one band finds only what is exactly alike."""
    originals, copies = planted(100)
    index = NearCopies()
    index.rows, index.buckets = 128, [{}]
    for text in originals:
        index.add(text)
    assert sum(index.add(text) is not None for text in copies) <= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abc ", min_size=1, max_size=15), max_size=8))
def test_what_is_kept_has_no_copy_and_what_goes_has_one(contents):
    kept = list(without_near_copies(texts(*contents), NearCopies(threshold=1.0, run=2)))
    sets = [frozenset(shingles(document.text, 2).tolist()) for document in kept]
    real = [one for one in sets if one]
    assert len(set(real)) == len(real)
    assert {frozenset(shingles(content, 2).tolist()) for content in contents} == set(sets)


def test_punctuation_and_case_make_no_difference_and_signs_alone_are_kept():
    documents = texts("A b c d e f g!", "***", "a, b, c: d e F g", "---", "a b c d e f h")
    kept = [document.text for document in without_near_copies(documents)]
    assert kept == ["A b c d e f g!", "***", "---", "a b c d e f h"]


def test_one_index_over_two_streams():
    index = NearCopies()
    assert len(list(without_near_copies(texts("one text of six words here"), index))) == 1
    assert not list(without_near_copies(texts("One text of six words here."), index))


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, float("nan")])
def test_wrong_thresholds(threshold):
    with pytest.raises(ValueError, match="threshold is"):
        NearCopies(threshold=threshold)
