r"""How a mixture is chosen: shares from sizes, a law fitted to small runs, and its lowest point.

A few small models read different mixtures. For each domain, a law says how its held-out loss depends on
all shares; where the weighted sum of the laws is lowest, there the large model is trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_FLOORS = 200
"""Floors that a fit tries."""


def shares_from_sizes(sizes: Mapping[str, float], power: float = 1.0) -> dict[str, float]:
    r"""Shares in proportion to $n^\alpha$.

    With a power of 1 each source has the share of its size, with 0 all have the same, and between
    them a small source gets more than its size gives it: it is read more often.

    Args:
        sizes: n, of each source, in characters or tokens; above 0.
        power: α, from 0 to 1. Often called 1/T with a temperature T.

    Raises:
        ValueError: no source, a size that is not above 0, or a power outside 0 to 1.

    Source: arXiv 1901.07291, section 3.1.
    """
    if not sizes or min(sizes.values()) <= 0 or not 0 <= power <= 1:
        raise ValueError(
            f"sizes must be above 0 and power from 0 to 1; got {dict(sizes)} and {power}"
        )
    weights = {name: float(size) ** power for name, size in sizes.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def epochs(
    weights: Mapping[str, float], sizes: Mapping[str, float], total: float
) -> dict[str, float]:
    """How often a run reads each source.

    Up to about four times, a text is nearly as good as a new one; after that it is worth less each
    time.

    Args:
        weights: of each source, in proportion to its share; they needn't sum to 1.
        sizes: of each source, in the unit of `total`.
        total: what the run reads of all sources together.

    Source: arXiv 2305.16264, figure 1.
    """
    whole = sum(weights.values())
    return {name: weight / whole * total / sizes[name] for name, weight in weights.items()}


@dataclass(frozen=True)
class MixingLaw:
    r"""The loss of one domain, as a function of all shares: $L(r) = c + e^{\sum_j b_j r_j}$.

    The paper writes $c + k\, e^{\sum_j t_j r_j}$. As shares sum to 1, k can be moved into the sum
    ($b_j = t_j + \ln k$), and nothing is left over that no run could tell.

    Args:
        floor: c, what no mixture goes below.
        slopes: b, one for each source; the more negative, the more that source helps.

    Source: arXiv 2403.16952, section 3.
    """

    floor: float
    slopes: tuple[float, ...]

    @classmethod
    def fit(cls, shares: Sequence[Sequence[float]], losses: Sequence[float]) -> "MixingLaw":
        """The law nearest to some runs.

        With the floor known, the logarithm of what is above it is linear in the shares. So floors are
        tried one by one, and the one whose line misses the losses least is taken.

        Args:
            shares: of each run, in the same order of sources.
            losses: of each run, in the domain.

        Raises:
            ValueError: fewer runs than the law has numbers, so that anything would fit.
        """
        runs, measured = np.asarray(shares, float), np.asarray(losses, float)
        if len(runs) <= runs.shape[1] or len(runs) != len(measured):
            raise ValueError(
                f"a law of {runs.shape[1]} sources has {runs.shape[1] + 1} numbers, and there are "
                f"{len(runs)} runs and {len(measured)} losses; make more runs"
            )

        def with_floor(floor: float) -> "MixingLaw":
            slopes, *_ = np.linalg.lstsq(runs, np.log(measured - floor), rcond=None)
            return cls(floor, tuple(map(float, slopes)))

        def miss(law: "MixingLaw") -> float:
            return float(
                sum((law(run) - loss) ** 2 for run, loss in zip(runs, measured, strict=True))
            )

        floors = measured.min() * np.linspace(0, 1, _FLOORS, endpoint=False)
        return min(map(with_floor, map(float, floors)), key=miss)

    def __call__(self, shares: Sequence[float]) -> float:
        """The loss that the law expects of a mixture."""
        return self.floor + float(np.exp(np.dot(self.slopes, shares)))


def choose(
    laws: Sequence[MixingLaw], weights: Sequence[float], parts: int = 100
) -> tuple[float, ...]:
    """The mixture with the lowest weighted sum of expected losses.

    Args:
        laws: of each domain.
        weights: how much each domain counts.
        parts: shares are multiples of one over this.

    Returns:
        The share of each source.
    """
    sources = len(laws[0].slopes)
    grid = (tuple(n / parts for n in counts) for counts in _divisions(parts, sources))
    return min(grid, key=lambda shares: _expected(laws, weights, shares))


def _expected(
    laws: Sequence[MixingLaw], weights: Sequence[float], shares: Sequence[float]
) -> float:
    return sum(weight * law(shares) for law, weight in zip(laws, weights, strict=True))


def _divisions(parts: int, sources: int) -> Iterator[tuple[int, ...]]:
    """All ways to divide so many parts among the sources."""
    if sources == 1:
        yield (parts,)
        return
    for first in range(parts + 1):
        for rest in _divisions(parts - first, sources - 1):
            yield (first, *rest)
