"""How sure is a score? A hundred questions are a sample; another hundred would give another one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist


def wilson(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Between which shares of right answers a model's true one lies.

    The shares $p$ from which the measured $\hat p$ is no further than $z$ of *their own* standard
    errors, $(\hat p - p)^2 \le z^2 p (1 - p) / n$. That is
    $\frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}$. The familiar
    $\hat p \pm z\sqrt{\hat p(1 - \hat p)/n}$ claims certainty after 5 right of 5; this doesn't.

    Args:
        right: answers.
        total: questions n, of which it is a sample.
        confidence: how often such an interval holds the true share.

    Returns:
        The lowest and the highest share, within 0 … 1.

    Raises:
        ValueError: no question, more right than asked, or a confidence that isn't between 0 and 1.

    Source: Wilson, Journal of the American Statistical Association 22(158), 1927.
    """
    if not 0 <= right <= total or not total:
        raise ValueError(f"{right} right of {total} questions; it takes 0 … total of at least one")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / total
    middle = share + z**2 / (2 * total)
    reach = z * sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    low, high = ((middle + sign * reach) / (1 + z**2 / total) for sign in (-1, 1))
    # At the ends the two terms are equal, and rounding alone would leave 1e-17 of their difference.
    return low if right else 0.0, high if right < total else 1.0


@dataclass(frozen=True)
class Paired:
    """Two models on the same questions.

    Args:
        only_first: questions that only the first got right.
        only_second: questions that only the second got right.
        p: how likely a difference at least this large is if both are equally good.
    """

    only_first: int
    only_second: int
    p: float


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    r"""Is one of two models better? Only the questions count on which they differ.

    If both are equally good, each of those $n$ is a fair coin, and with $k$ the rarer side
    $p = \min(1, 2 \sum_{i \le k} \binom{n}{i} / 2^n)$ (McNemar's test, exact). Two intervals that
    overlap say less: most of their width is the questions' own, and those are the same for both.

    Args:
        first: which questions the first model got right.
        second: which of them the second, in the same order.

    Raises:
        ValueError: another number of questions, or none.

    Source: McNemar, Psychometrika 12(2), 1947.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"{len(first)} and {len(second)} answers; give both models' to the same questions"
        )
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    differing = only_first + only_second
    tail = sum(comb(differing, i) for i in range(min(only_first, only_second) + 1))
    return Paired(only_first, only_second, min(1.0, 2 * tail / 2**differing))
