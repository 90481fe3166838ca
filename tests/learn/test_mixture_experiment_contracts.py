"""The contracts of lesson 45 accept every right answer and tell wrong ones in a clear sentence."""

import math

import numpy as np
import pytest

from tests.learn.verdict import verdict


def shares_by_logarithms(sizes, power=1.0):
    if not sizes or any(size <= 0 for size in sizes.values()) or power < 0 or power > 1:
        raise ValueError
    heights = np.array([power * math.log(size) for size in sizes.values()])
    weights = np.exp(heights - heights.max())
    return dict(zip(sizes, weights / weights.sum(), strict=True))


def shares_by_normalised_sizes(sizes, power=1.0):
    if not 0 <= power <= 1:
        raise ValueError("power")
    if not sizes or not all(size > 0 for size in sizes.values()):
        raise ValueError("sizes")
    total = sum(sizes.values())
    parts = {name: (size / total) ** power for name, size in sizes.items()}
    return {name: part / sum(parts.values()) for name, part in parts.items()}


def shares_one_by_one(sizes, power=1):
    found = {}
    if len(sizes) == 0 or power != min(max(power, 0), 1):
        raise ValueError(f"no shares of {sizes} with {power}")
    for name in sizes:
        if sizes[name] <= 0:
            raise ValueError(name)
        found[name] = sizes[name] ** power / sum(size**power for size in sizes.values())
    return found


def epochs_by_arrays(weights, sizes, total):
    read = np.array(list(weights.values())) / sum(weights.values()) * total
    return dict(zip(weights, read / [sizes[name] for name in weights], strict=True))


def epochs_by_loop(weights, sizes, total):
    found = {}
    for name, weight in weights.items():
        found[name] = total * weight / sum(weights.values()) / sizes[name]
    return found


def epochs_by_pieces(weights, sizes, total):
    each = total / sum(weights.values())
    return {name: each / (sizes[name] / weights[name]) for name in sizes if name in weights}


def fit_by_lstsq(shares, losses, floors):
    table = np.column_stack([np.ones(len(shares)), shares])

    def fit(floor):
        numbers = np.linalg.lstsq(table, np.log(np.subtract(losses, floor)), rcond=None)[0]
        return ((floor + np.exp(table @ numbers) - losses) ** 2).mean(), (floor, *numbers)

    return min((fit(floor) for floor in floors), key=lambda pair: pair[0])[1]


def fit_by_formulas(shares, losses, floors):
    best = None
    mean = sum(shares) / len(shares)
    for c in floors:
        logs = [math.log(loss - c) for loss in losses]
        height = sum(logs) / len(logs)
        b = sum((s - mean) * (y - height) for s, y in zip(shares, logs, strict=True))
        b /= sum((s - mean) ** 2 for s in shares)
        a = height - b * mean
        error = sum((c + math.exp(a + b * s) - y) ** 2 for s, y in zip(shares, losses, strict=True))
        if best is None or error < best[0]:
            best = error, [c, a, b]
    return best[1]


def fit_by_polynomial(shares, losses, floors):
    lines = [np.polynomial.Polynomial.fit(shares, np.log(np.array(losses) - c), 1) for c in floors]
    errors = [
        np.linalg.norm(c + np.exp(line(np.array(shares))) - losses)
        for c, line in zip(floors, lines, strict=True)
    ]
    at = int(np.argmin(errors))
    return floors[at], *lines[at].convert().coef


def choose_by_loop(first, second, weight, shares):
    best = shares[0]
    for share in shares:
        if expected(first, second, weight, share) < expected(first, second, weight, best):
            best = share
    return best


def expected(first, second, weight, share):
    return first(share) + weight * (second(share) - first(share))


def choose_by_argmin(first, second, weight, shares):
    sums = [expected(first, second, weight, share) for share in shares]
    return shares[int(np.argmin(sums))]


def choose_by_sorting(first, second, weight, shares):
    return sorted(shares, key=lambda share: expected(first, second, weight, share))[0]


def mix_by_index(sources, weights, characters):
    place, given = dict.fromkeys(sources, 0), dict.fromkeys(sources, 0.0)
    total = 0
    while total < characters:
        name = min(given, key=given.get)
        text = sources[name][place[name] % len(sources[name])]
        place[name] += 1
        given[name] += len(text) / weights[name]
        total += len(text)
        yield name, text


def mix_into_a_list(sources, weights, characters):
    return list(mix_by_index(sources, weights, characters))


def mix_by_iterators(sources, weights, characters):
    running = {name: iter(texts) for name, texts in sources.items()}
    given = dict.fromkeys(sources, 0)
    whole = sum(weights.values())
    while sum(given.values()) < characters:
        behind = {n: given[n] - weights[n] / whole * sum(given.values()) for n in sources}
        name = min(behind, key=behind.get)
        text = next(running[name], None)
        if text is None:
            running[name] = iter(sources[name])
            text = next(running[name])
        given[name] += len(text)
        yield name, text


RIGHT = {
    "shares_from_sizes": (shares_by_logarithms, shares_by_normalised_sizes, shares_one_by_one),
    "epochs": (epochs_by_arrays, epochs_by_loop, epochs_by_pieces),
    "fit_law": (fit_by_lstsq, fit_by_formulas, fit_by_polynomial),
    "choose_share": (choose_by_loop, choose_by_argmin, choose_by_sorting),
    "mended_mixture": (mix_by_index, mix_into_a_list, mix_by_iterators),
}


@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name, parts in RIGHT.items() for part in parts]
)
def test_right_answers_pass_however_they_are_written(name, part):
    result = verdict(name, part)
    assert result.state == "right", result


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("shares_from_sizes", lambda sizes, power: [0.9, 0.1], "returned list; a dict with web"),
        ("shares_from_sizes", lambda sizes, power: dict.fromkeys(sizes, 1.0), "yours are 1, 1"),
        ("epochs", lambda *told: None, "returned None"),
        ("epochs", lambda weights, *_: dict.fromkeys(weights, 7), "0.5, 2; yours are 7, 7"),
        ("fit_law", lambda *told: 0.5, "returned 0.5; floor, a and b"),
        ("fit_law", lambda *told: (0.5, 1, -1), "yours are c 0.500, a 1.000, b -1.000"),
        ("choose_share", lambda *told: 0.2, "weight of 0.5 the best of the shares is 0.5"),
        ("choose_share", lambda *told: "0.5", "weight of 0.8"),
        ("mended_mixture", lambda *told: ["text"], "has to yield pairs"),
        ("mended_mixture", lambda *told: iter(list(mix_by_index(*told))[:60]), "characters were"),
        (
            "mended_mixture",
            lambda *told: ((n, t.upper()) for n, t in mix_by_index(*told)),
            "don't come in their order",
        ),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result
