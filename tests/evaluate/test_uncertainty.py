"""Intervals and p-values against scipy, by hand, and in what they promise."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite.evaluate.uncertainty import paired, wilson

stats = pytest.importorskip("scipy.stats")
COUNTS = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, st.floats(0.5, 0.999))
def test_the_interval_is_that_of_scipy(counts, confidence):
    right, total = counts
    wanted = stats.binomtest(right, total).proportion_ci(confidence, method="wilson")
    assert wilson(right, total, confidence) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@given(COUNTS)
def test_right_and_wrong_are_mirrored_and_the_share_is_within(counts):
    right, total = counts
    low, high = wilson(right, total)
    other = wilson(total - right, total)
    assert (1 - high, 1 - low) == pytest.approx(other, abs=1e-12)
    assert 0 <= low <= right / total <= high <= 1
    assert low < high


def test_the_interval_by_hand():
    # z² = 3.8415; (0.5 + 0.0192 ± 1.96 · √(0.0025 + 0.0000960)) / 1.0384 for 50 of 100.
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(5, 5)[0] == pytest.approx(5 / (5 + 3.8415), abs=1e-4)  # and not 1
    assert wilson(0, 5)[0] == 0


def test_95_of_100_intervals_hold_the_true_share():
    rng, share, total = random.Random(0), 0.7, 100
    held = 0
    for _ in range(2000):
        right = sum(rng.random() < share for _ in range(total))
        low, high = wilson(right, total)
        held += low <= share <= high
    # Two thousand tries have a standard deviation of 0.005; counts of 100 are coarse, by 0.01.
    assert held / 2000 == pytest.approx(0.95, abs=0.025)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_the_p_value_is_that_of_a_coin(pairs):
    first, second = map(list, zip(*pairs, strict=True))
    found = paired(first, second)
    differing = found.only_first + found.only_second
    assert differing == sum(a != b for a, b in pairs)
    assert found.only_first - found.only_second == sum(first) - sum(second)
    wanted = stats.binomtest(found.only_first, differing).pvalue if differing else 1.0
    assert found.p == pytest.approx(wanted, rel=1e-9)


def test_a_pair_by_hand():
    first, second = [True] * 6 + [False] * 94, [True] * 0 + [False] * 100
    assert paired(first, second).p == 2 / 2**6
    # Where both agree on many, the few that differ decide: 61 to 55 of 100, and p is 0.03.
    first = [True] * 55 + [True] * 6 + [False] * 39
    second = [True] * 55 + [False] * 45
    assert paired(first, second).p == 2 / 2**6
    low, high = wilson(61, 100)[0], wilson(55, 100)[1]
    assert low < high, "the intervals overlap all the same"
    assert paired([True, False], [False, True]).p == 1


def test_what_cannot_be_counted_is_refused():
    for right, total in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match=r"0 … total"):
            wilson(right, total)
    for confidence in (95, 1):
        with pytest.raises(ValueError, match=f"between 0 and 1, got {confidence}"):
            wilson(1, 2, confidence=confidence)
    for first, second in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="same questions"):
            paired(first, second)
