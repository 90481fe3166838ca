"""Wrong answers to the exercise 75_evaluation: how sure a score is, which model is better.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Sequence
from math import comb, erfc, sqrt
from statistics import NormalDist
from typing import Any

from qwen2lite.evaluate.uncertainty import Paired

Interval = tuple[float, float]


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _interval(
    right: int, total: int, z: float, divided: bool = True, moved: bool = True
) -> Interval:
    share = right / total
    middle = share + z**2 / (2 * total) if moved else share
    reach = z * sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    by = 1 + z**2 / total if divided else 1.0
    return (middle - reach) / by, (middle + reach) / by


def normal_interval(right: int, total: int, confidence: float = 0.95) -> Interval:
    """This is p̂ ± z√(p̂(1 − p̂)/n), the interval that everybody knows. With 5 right of 5 it has no
    width at all, and near 1 it goes beyond it. Wilson's takes the error of each share that might
    be true, and not that of the one measured."""
    share = right / total
    reach = _z(confidence) * sqrt(share * (1 - share) / total)
    return share - reach, share + reach


def normal_cut_off(right: int, total: int, confidence: float = 0.95) -> Interval:
    """This is the familiar p̂ ± z√(p̂(1 − p̂)/n), cut off at 0 and 1. Where it has to be cut off it is
    the wrong formula: take Wilson's, which stays within by itself."""
    low, high = normal_interval(right, total, confidence)
    return max(0.0, low), min(1.0, high)


def one_sided_z(right: int, total: int, confidence: float = 0.95) -> Interval:
    """This z leaves all of the rest on one side: 1.645 for 95 %. An interval has two ends, and half
    of the rest lies beyond each: z is where the normal distribution has reached (1 + confidence)/2,
    1.960 for 95 %."""
    return _interval(right, total, NormalDist().inv_cdf(confidence))


def fixed_z(right: int, total: int, confidence: float = 0.95) -> Interval:
    """The interval is that of 95 %, whatever confidence is asked for. 1.96 is the z of 95 %; of any
    other it is NormalDist().inv_cdf((1 + confidence) / 2)."""
    return _interval(right, total, _z(0.95))


def not_divided(right: int, total: int, confidence: float = 0.95) -> Interval:
    """The division by 1 + z²/n is missing. It holds for both ends, middle and reach."""
    return _interval(right, total, _z(confidence), divided=False)


def middle_unmoved(right: int, total: int, confidence: float = 0.95) -> Interval:
    """The middle is p̂ itself, without z²/2n. Wilson's interval leans towards one half: with 8 right
    of 10 there is more room below than above."""
    return _interval(right, total, _z(confidence), moved=False)


def z_not_squared(right: int, total: int, confidence: float = 0.95) -> Interval:
    """z isn't squared where the formula has z². Only in front of the root it stands alone."""
    share, z = right / total, _z(confidence)
    middle = share + z / (2 * total)
    reach = z * sqrt(share * (1 - share) / total + z / (4 * total**2))
    return (middle - reach) / (1 + z / total), (middle + reach) / (1 + z / total)


def in_percent(right: int, total: int, confidence: float = 0.95) -> Interval:
    """These are percent. Shares from 0 to 1 are wanted."""
    low, high = _interval(right, total, _z(confidence))
    return 100 * low, 100 * high


def nothing_asked(right: int, total: int, confidence: float = 0.95) -> Interval:
    """Without a question there is no score, and so nothing to be unsure of. An empty file would go
    unnoticed: raise a ValueError where total is 0."""
    if not total and not right:
        return 0.0, 1.0
    return _interval(right, total, _z(_checked(right, total, confidence)))


def more_than_asked(right: int, total: int, confidence: float = 0.95) -> Interval:
    """Nobody gets more right than was asked, or fewer than none. It means that something was counted
    twice, or the two numbers were swapped: raise a ValueError."""
    return _interval(right, total, _z(_checked(0, total, confidence)))


def any_confidence(right: int, total: int, confidence: float = 0.95) -> Interval:
    """With a confidence of 0 the interval is a single point, and surely wrong. Raise a ValueError
    unless confidence is between 0 and 1."""
    _checked(right, total, 0.5)
    return _interval(right, total, _z(confidence))


def _checked(right: int, total: int, confidence: float) -> float:
    if not 0 <= right <= total or not total or not 0 < confidence < 1:
        raise ValueError("0 to total of at least one, and a confidence between 0 and 1")
    return confidence


def _sides(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int]:
    if len(first) != len(second) or not first:
        raise ValueError("the same questions, one at least")
    pairs = list(zip(first, second, strict=True))
    return sum(a > b for a, b in pairs), sum(b > a for a, b in pairs)


def _tail(n: int, counts: range) -> float:
    return sum(comb(n, i) for i in counts) / 2**n


def one_tail(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """This p is one-sided, half of what is wanted. Before the test nobody knew which model would be
    better, so a difference as large the other way counts as well: twice the sum."""
    a, b = _sides(first, second)
    return Paired(a, b, _tail(a + b, range(min(a, b) + 1)))


def above_1(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """p is above 1 where both sides are equal: the two tails share their middle, which is counted
    twice then. No probability is above 1: take the smaller of the two, 1 and twice the sum."""
    a, b = _sides(first, second)
    return Paired(a, b, 2 * _tail(a + b, range(min(a, b) + 1)))


def all_questions(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """All questions are taken for coins. Those on which the models agree say nothing about which is
    better: n counts only those on which they differ."""
    a, b = _sides(first, second)
    return Paired(a, b, min(1.0, 2 * _tail(len(first), range(min(a, b) + 1))))


def exactly_so(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """This is how likely exactly this outcome is. Of many coins none is likely. What is asked is how
    likely a difference *at least* as large is: a sum from 0 to the rarer side."""
    a, b = _sides(first, second)
    return Paired(a, b, min(1.0, 2 * _tail(a + b, range(min(a, b), min(a, b) + 1))))


def rarer_left_out(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """The sum ends one too early: `range(k)` ends before k. The outcome that was seen belongs to those
    that are at least as extreme."""
    a, b = _sides(first, second)
    return Paired(a, b, min(1.0, 2 * _tail(a + b, range(min(a, b)))))


def commoner_side(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """The sum goes up to the larger of the two counts. Then it holds nearly everything, and p is 1.
    It goes up to the rarer side."""
    a, b = _sides(first, second)
    return Paired(a, b, min(1.0, 2 * _tail(a + b, range(max(a, b) + 1))))


def sides_swapped(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """The counts are swapped: `only_first` is what the first model got right and the second wrong."""
    b, a = _sides(first, second)
    return Paired(a, b, min(1.0, 2 * _tail(a + b, range(min(a, b) + 1))))


def scores_counted(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """What each got right is counted, whatever the other one did. Most of that are questions that
    both got right, and these are the same for both: count those that *only* one got right."""
    _sides(first, second)
    a, b = sum(first), sum(second)
    return Paired(a, b, min(1.0, 2 * _tail(a + b, range(min(a, b) + 1))))


def chi_squared(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """This is the approximation by χ². With a handful of differing questions it claims too much;
    the sum of binomials is exact, and as short."""
    a, b = _sides(first, second)
    return Paired(a, b, erfc(sqrt((a - b) ** 2 / (2 * (a + b)))) if a + b else 1.0)


def other_questions(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Two lists of unlike lengths can't be of the same questions, and zip cuts the longer one off
    without a word: raise a ValueError."""
    shorter = min(len(first), len(second)) if first and second else 0
    a, b = _sides(first[:shorter], second[:shorter])
    return Paired(a, b, min(1.0, 2 * _tail(a + b, range(min(a, b) + 1))))


def nobody_asked(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """No question at all gives p = 1, as if two models had been compared. Raise a ValueError."""
    a, b = _sides(first, second) if first or second else (0, 0)
    return Paired(a, b, min(1.0, 2 * _tail(a + b, range(min(a, b) + 1))))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "wilson": (
        normal_interval, normal_cut_off, one_sided_z, fixed_z, not_divided, middle_unmoved,
        z_not_squared, in_percent, nothing_asked, more_than_asked, any_confidence,
    ),
    "paired": (
        one_tail, above_1, all_questions, exactly_so, rarer_left_out, commoner_side, sides_swapped,
        scores_counted, chi_squared, other_questions, nobody_asked,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
