"""Wrong ways to choose a mixture: its shares, its fit, its minimum, and how it is mixed.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from qwen2lite.train.mixing import epochs, shares_from_sizes

Fit = tuple[float, float, float]
Loss = Callable[[float], float]
Texts = Mapping[str, Sequence[str]]


def power_of_the_share_only(sizes: Mapping[str, float], power: float = 1.0) -> dict[str, float]:
    """The powers don't sum to 1, so these are weights and no shares: divide each by their sum."""
    total = sum(sizes.values())
    return {name: (size / total) ** power for name, size in sizes.items()}


def one_over_the_power(sizes: Mapping[str, float], power: float = 1.0) -> dict[str, float]:
    """This is the power 1/α, which gives the large sources even more. Written with a temperature the
    exponent is 1/T, and here it is α itself."""
    weights = {name: size ** (1 / max(power, 1e-2)) for name, size in sizes.items()}
    return shares_from_sizes(weights)


def power_ignored(sizes: Mapping[str, float], power: float = 1.0) -> dict[str, float]:
    """The shares are those of the sizes, whatever the power is."""
    return shares_from_sizes(sizes)


def all_the_same(sizes: Mapping[str, float], power: float = 1.0) -> dict[str, float]:
    """All sources have the same share, which is right only for a power of 0."""
    return shares_from_sizes(sizes, 0.0)


def nothing_refused(sizes: Mapping[str, float], power: float = 1.0) -> dict[str, float]:
    """Nothing is refused. A size of 0 or a power of 2 is a slip of the pen, and a run of weeks would
    follow it: raise a ValueError first."""
    weights = {name: size**power for name, size in sizes.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def weights_taken_for_shares(
    weights: Mapping[str, float], sizes: Mapping[str, float], total: float
) -> dict[str, float]:
    """The weights are taken as they are. Those of 3 and 1 are shares of 0.75 and 0.25: divide by their
    sum."""
    return epochs(weights, sizes, total * sum(weights.values()))


def the_same_for_all(
    weights: Mapping[str, float], sizes: Mapping[str, float], total: float
) -> dict[str, float]:
    """This is how often all sources together are read. A small one with a large share is read far
    more often, and that is the point."""
    return dict.fromkeys(weights, total / sum(sizes.values()))


def upside_down(
    weights: Mapping[str, float], sizes: Mapping[str, float], total: float
) -> dict[str, float]:
    """Size and what is read of it are the wrong way round: read 10 of a source of 5, and you have read
    it twice."""
    return {name: 1 / times for name, times in epochs(weights, sizes, total).items()}


def _above(shares: Sequence[float], losses: Sequence[float], floor: float) -> Fit:
    slope, start = np.polyfit(shares, np.log(np.asarray(losses) - floor), 1)
    return floor, float(start), float(slope)


def _misses(fit: Fit, shares: Sequence[float], losses: Sequence[float]) -> np.ndarray:
    floor, start, slope = fit
    return floor + np.exp(start + slope * np.asarray(shares)) - np.asarray(losses)


def _fits(shares: Sequence[float], losses: Sequence[float], floors: Sequence[float]) -> list[Fit]:
    return [_above(shares, losses, floor) for floor in floors]


def no_floor(shares: Sequence[float], losses: Sequence[float], floors: Sequence[float]) -> Fit:
    """There is no floor in it: ln L is fitted, and not ln(L - c). The law then falls towards 0 with a
    large share, and no text gets there. Try all floors."""
    return _above(shares, losses, 0.0)


def last_floor(shares: Sequence[float], losses: Sequence[float], floors: Sequence[float]) -> Fit:
    """The last floor is taken, whatever it misses. Keep the fit with the smallest error."""
    return _fits(shares, losses, floors)[-1]


def misses_cancel(shares: Sequence[float], losses: Sequence[float], floors: Sequence[float]) -> Fit:
    """The misses are added up with their signs, so too high here and too low there make nothing, and
    the most negative sum wins: square them first."""
    fits = _fits(shares, losses, floors)
    return min(fits, key=lambda fit: float(_misses(fit, shares, losses).sum()))


def misses_of_the_logarithms(
    shares: Sequence[float], losses: Sequence[float], floors: Sequence[float]
) -> Fit:
    """The error is measured in ln(L - c), which depends on c: below a high floor the same miss looks
    larger. Compare losses: c + e^(a + b·share) with what was measured."""
    measured, at = np.asarray(losses), np.asarray(shares)
    return min(
        _fits(shares, losses, floors),
        key=lambda fit: float(((np.log(measured - fit[0]) - fit[1] - fit[2] * at) ** 2).sum()),
    )


def the_weight_itself(first: Loss, second: Loss, weight: float, shares: Sequence[float]) -> float:
    """The wanted weight is taken as the share. What counts for little may still need much reading,
    and the first tenth of a domain is worth more than its last: ask the laws."""
    return min(shares, key=lambda share: abs(share - weight))


def both_alike(first: Loss, second: Loss, weight: float, shares: Sequence[float]) -> float:
    """The losses are added without their weights."""
    return min(shares, key=lambda share: first(share) + second(share))


def weights_swapped(first: Loss, second: Loss, weight: float, shares: Sequence[float]) -> float:
    """The weights are swapped: `weight` belongs to the second domain, and 1 - weight to the first."""
    return min(shares, key=lambda share: weight * first(share) + (1 - weight) * second(share))


def the_highest(first: Loss, second: Loss, weight: float, shares: Sequence[float]) -> float:
    """This is where the sum is highest. A loss is to be small."""
    return max(shares, key=lambda share: (1 - weight) * first(share) + weight * second(share))


def beyond_the_runs(first: Loss, second: Loss, weight: float, shares: Sequence[float]) -> float:
    """Shares are tried that were not given. A law is only as good as the runs it comes from: at a
    share of 0 the true loss may be four times what it says."""
    return min(
        (part / 100 for part in range(101)),
        key=lambda share: (1 - weight) * first(share) + weight * second(share),
    )


def counts_documents(
    sources: Mapping[str, Sequence[str]], weights: Mapping[str, float], characters: int
) -> Iterator[tuple[str, str]]:
    """It counts documents, and a document of one source may be as long as a hundred of another
    (Megatron-Energon #212): count characters."""
    running = {name: cycle(texts) for name, texts in sources.items()}
    given, total = dict.fromkeys(sources, 0), 0
    while total < characters:
        name = min(sources, key=lambda name: given[name] / weights[name])
        text = next(running[name])
        given[name] += 1
        total += len(text)
        yield name, text


def _mixed(
    sources: Texts, weights: Mapping[str, float], characters: int
) -> Iterator[tuple[str, str]]:
    """The right mixture, for the mutants to spoil."""
    running = {name: cycle(texts) for name, texts in sources.items()}
    given = dict.fromkeys(sources, 0)
    while sum(given.values()) < characters:
        name = min(sources, key=lambda name: given[name] / weights[name])
        text = next(running[name])
        given[name] += len(text)
        yield name, text


def one_after_the_other(
    sources: Texts, weights: Mapping[str, float], characters: int
) -> Iterator[tuple[str, str]]:
    """The shares are right and nothing is mixed: first one source, then the next. The model forgets
    the first while it reads the second."""
    whole = list(_mixed(sources, weights, characters))
    return iter([(n, text) for name in sources for n, text in whole if n == name])


def ends_with_the_smallest(
    sources: Texts, weights: Mapping[str, float], characters: int
) -> Iterator[tuple[str, str]]:
    """It ends when the first source has run out, and nobody is told that the corpus is short: start
    that source again."""
    left = {name: len(texts) for name, texts in sources.items()}
    for name, text in _mixed(sources, weights, characters):
        if not left[name]:
            return
        left[name] -= 1
        yield name, text


def goes_on_without(
    sources: Texts, weights: Mapping[str, float], characters: int
) -> Iterator[tuple[str, str]]:
    """A source that has run out is left out from then on, so the end of the corpus is another mixture
    than its beginning, and the end is what a model remembers best: start the source again."""
    left, total = {name: list(texts) for name, texts in sources.items()}, 0
    given = dict.fromkeys(sources, 0)
    while total < characters and any(left.values()):
        name = min((n for n in left if left[n]), key=lambda name: given[name] / weights[name])
        text = left[name].pop(0)
        given[name] += len(text)
        total += len(text)
        yield name, text


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "shares_from_sizes": (
        power_of_the_share_only,
        one_over_the_power,
        power_ignored,
        all_the_same,
        nothing_refused,
    ),
    "epochs": (weights_taken_for_shares, the_same_for_all, upside_down),
    "fit_law": (no_floor, last_floor, misses_cancel, misses_of_the_logarithms),
    "choose_share": (
        the_weight_itself,
        both_alike,
        weights_swapped,
        the_highest,
        beyond_the_runs,
    ),
    "mended_mixture": (
        counts_documents,
        one_after_the_other,
        ends_with_the_smallest,
        goes_on_without,
    ),
}
"""The wrong versions of each task."""
