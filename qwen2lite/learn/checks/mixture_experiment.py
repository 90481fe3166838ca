"""What the exercise 45_mixture_experiment asks: shares, epochs, a fit, a choice, and a mixture."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qwen2lite.learn.contract import Mistake, call, describe, told_by
from qwen2lite.learn.mutants.mixture_experiment import MUTANTS, nothing_refused

Part = Callable[..., Any]


def check_shares_from_sizes(shares_from_sizes: Part) -> Iterator[str]:
    """Sizes 9 and 1 by hand, for three powers; three sources; and refused sizes."""
    told = {"web": 900, "code": 90, "poems": 10}, 0.5
    got = _numbers_of(shares_from_sizes, told, "shares_from_sizes")
    roots = [30, 90**0.5, 10**0.5]
    right = [root / sum(roots) for root in roots]
    why = "" if _near(got, right) else _usual("shares_from_sizes", got, told)
    for power, want in ((1.0, [0.9, 0.1]), (0.5, [0.75, 0.25]), (0.0, [0.5, 0.5])):
        sizes = {"large": 9, "small": 1}
        shares = _numbers_of(shares_from_sizes, (sizes, power), "shares_from_sizes")
        _require_near(shares, want, f"Sizes 9 and 1 with the power {power:g} have the shares", why)
        yield f"sizes 9 and 1, power {power:g}: shares of {want[0]:g} and {want[1]:g}"
    _require_near(got, right, "Sizes 900, 90 and 10 with the power 0.5 have the shares", why)
    yield "and they sum to 1, for any number of sources"
    for refused in (({}, 1.0), ({"a": 0, "b": 1}, 0.5), ({"a": 1}, 1.5), ({"a": 1}, -0.5)):
        _require_refused(shares_from_sizes, *refused)
    yield "no sources, a size of 0, a power outside 0 to 1: ValueError"


def check_epochs(epochs: Part) -> Iterator[str]:
    """By hand: a source of 5 of which 10 is read."""
    told = {"web": 3, "poems": 1}, {"web": 60, "poems": 5}, 40
    got = _numbers_of(epochs, told, "epochs")
    why = _usual("epochs", got, told)
    what = "Weights 3 and 1, sizes 60 and 5, 40 read in all: the epochs are"
    _require_near(got, [0.5, 2.0], what, why)
    yield "30 of 60 is half of it; 10 of 5 is twice"


def _require_refused(part: Part, sizes: dict[str, int], power: float) -> None:
    try:
        shares = part(sizes, power)
    except ValueError:
        return
    except Exception as other:
        got = f"raises {type(other).__name__}: {other}"
    else:
        got = f"returns {describe(shares)}"
    raise Mistake(
        f"Sizes {sizes} with the power {power:g} have no shares, and shares_from_sizes {got}.",
        told_by(nothing_refused),
    )


def _numbers_of(part: Part, told: tuple[Any, ...], name: str) -> list[float]:
    """The values of the dict that came back, in the order of the sources."""
    got = call(part, *told, name=name)
    if not isinstance(got, Mapping) or set(got) != set(told[0]):
        raise Mistake(
            f"{name} returned {describe(got)}; a dict with {', '.join(told[0])} was wanted."
        )
    return [float(got[source]) for source in told[0]]


def _usual(name: str, got: list[float], told: tuple[Any, ...]) -> str:
    for mutant in MUTANTS[name]:
        wrong = mutant(*told)
        if all(math.isclose(a, wrong[b], rel_tol=1e-6) for a, b in zip(got, wrong, strict=True)):
            return told_by(mutant)
    return ""


def _near(got: list[float], want: list[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(got, want, strict=True))


def _require_near(got: list[float], want: list[float], what: str, why: str) -> None:
    if not _near(got, want):
        mine, right = (", ".join(f"{value:.4g}" for value in values) for values in (got, want))
        raise Mistake(f"{what} {right}; yours are {mine}.", why)


def check_fit_law(fit_law: Part) -> Iterator[str]:
    """Losses that follow a law exactly, then losses beside one, where only the best floor will do."""
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    # Above the floor of 0.5 they halve with every quarter: 2, 1, 1/2, 1/4, 1/8.
    losses = [2.5, 1.5, 1.0, 0.75, 0.625]
    rough = [2.6, 1.45, 1.05, 0.8, 0.55]
    floors = [part / 20 for part in range(2, 11)]  # 0.1 to 0.5
    mine = _fitted(fit_law, shares, rough, floors)
    why = next(
        (told_by(m) for m in MUTANTS["fit_law"] if _same(mine, m(shares, rough, floors))), ""
    )
    got = _fitted(fit_law, shares, losses, floors)
    if not _same(got, (0.5, math.log(2), -4 * math.log(2))):
        raise Mistake(
            f"Losses of 2.5, 1.5, 1, 0.75, 0.625 at shares of 0 to 1 have the floor 0.5, a = ln 2 = "
            f"0.693 and b = -4 ln 2 = -2.773; yours are {_told(got)}.",
            why,
        )
    yield "2.5, 1.5, 1, 0.75, 0.625: half as far above 0.5 with each quarter"
    want = _best(shares, rough, floors)
    if not _same(mine, want):
        raise Mistake(
            f"Of losses that lie beside a law the nearest fit is {_told(want)}; yours is "
            f"{_told(mine)}.",
            why,
        )
    yield "of losses that lie beside a law, the one that misses them least"


def _fitted(part: Part, shares: list[float], losses: list[float], floors: list[float]) -> Any:
    got = call(part, list(shares), list(losses), list(floors), name="fit_law")
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Mistake(f"fit_law returned {describe(got)}; floor, a and b were wanted.")
    return tuple(float(value) for value in got)


def _best(shares: list[float], losses: list[float], floors: list[float]) -> tuple[float, ...]:
    """By the formulas of a straight line, without a library."""
    n, middle = len(shares), sum(shares) / len(shares)
    spread = sum((share - middle) ** 2 for share in shares)
    found = []
    for floor in floors:
        logs = [math.log(loss - floor) for loss in losses]
        b = sum((s - middle) * log for s, log in zip(shares, logs, strict=True)) / spread
        a = sum(logs) / n - b * middle
        misses = [
            floor + math.exp(a + b * s) - loss for s, loss in zip(shares, losses, strict=True)
        ]
        found.append((sum(miss**2 for miss in misses), floor, a, b))
    return min(found)[1:]


def _same(got: Any, want: Any) -> bool:
    return all(abs(a - b) < 1e-4 for a, b in zip(got, want, strict=True))


def _told(fit: Any) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in zip("cab", fit, strict=True))


def check_choose_share(choose_share: Part) -> Iterator[str]:
    """Two laws that mirror each other: the middle for equal weights, and by hand for others."""

    def first(share: float) -> float:
        return 1 + math.exp(4 * share - 4)

    def second(share: float) -> float:
        return 1 + math.exp(-4 * share)

    shares = [part / 20 for part in range(2, 19)]  # 0.1 to 0.9

    def probe(part: Part, weight: float) -> float:
        return float(call(part, first, second, weight, list(shares), name="choose_share"))

    told = [probe(choose_share, weight) for weight in (0.5, 0.8, 0.999)]
    why = ""
    for mutant in MUTANTS["choose_share"]:
        if [probe(mutant, weight) for weight in (0.5, 0.8, 0.999)] == told:
            why = told_by(mutant)
            break
    # The sum is lowest where its slopes cancel: share = 1/2 + ln(weight / (1 - weight)) / 8.
    for got, weight, want, what in (
        (told[0], 0.5, 0.5, "both count alike: the middle"),
        (told[1], 0.8, 0.65, "the second counts 0.8: a share of 0.65, well below its weight"),
        (told[2], 0.999, 0.9, "never beyond the shares that are given"),
    ):
        if abs(got - want) > 1e-9:
            raise Mistake(
                f"For a weight of {weight:g} the best of the shares is {want:g}; yours is {got:g}.",
                why,
            )
        yield what


def check_mended_mixture(mended_mixture: Part) -> Iterator[str]:
    """A source of long texts and one of short ones, in characters 3 to 1; and one that runs out."""
    sources = {
        "books": [f"{number:03}" + "b" * 97 for number in range(40)],
        "notes": [f"{number:03}" + "n" * 7 for number in range(30)],
    }
    weights = {"books": 3, "notes": 1}

    def ask(part: Part) -> list[tuple[str, str]]:
        def listed(*told: Any) -> list[Any]:
            return list(part(*told))

        return call(listed, sources, weights, 6000, name="mended_mixture")

    given = ask(mended_mixture)
    if not given or not all(isinstance(item, tuple | list) and len(item) == 2 for item in given):
        raise Mistake("mended_mixture has to yield pairs: the source's name and a text.")
    why = next((told_by(m) for m in MUTANTS["mended_mixture"] if ask(m) == given), "")
    read, total = dict.fromkeys(sources, 0), 0
    for name, text in given:
        read[name] += len(text)
        total += len(text)
        if abs(read["notes"] - total / 4) > 100:
            raise Mistake(
                f"After {total} characters {read['notes']} are of notes, whose share is a quarter.",
                why,
            )
    yield "at every moment each source has its share of the characters"
    if not 6000 <= total < 6100:
        raise Mistake(f"6,000 characters were wanted, and {total} came.", why)
    notes = [text for name, text in given if name == "notes"]
    if notes != (sources["notes"] * 9)[: len(notes)]:
        raise Mistake("The notes don't come in their order, and again from the first one.", why)
    yield "a source that has run out starts again"
