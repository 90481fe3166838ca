"""What the filters of the exercise 41_corpus have to do: `minhash` and `gives_away`.

Both are asked small things that can be checked by hand, and then something large.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from qwen2lite.learn.contract import Mistake, call, describe, told_by
from qwen2lite.learn.mutants.corpus import MUTANTS
from qwen2lite.train.dedup import MinHash

Part = Callable[..., Any]


def known(mutants: Iterable[Part], got: Any, ask: Callable[[Part], Any]) -> str:
    """What the known mistake says of itself that gives the answer `got` to the same question."""
    for mutant in mutants:
        try:
            if ask(mutant) == got:
                return told_by(mutant)
        except Exception:  # a mutant may be unable to answer; then it is not this mistake
            continue
    return ""


def check_minhash(minhash: Part) -> Iterator[str]:
    """Two functions by hand, then what signatures are for: unions, and the Jaccard similarity."""
    runs = np.array([5, 1, 3, 2], np.uint64)
    # 2⁶⁴ - 1 is -1: it turns the order round.
    factors = np.array([[1], [2**64 - 1]], np.uint64)
    got = _signature(minhash, runs, factors)
    want = [1, 2**64 - 5]
    if got != want:
        why = known(MUTANTS["minhash"], got, lambda part: part(runs, factors).tolist())
        raise Mistake(
            f"Runs 5, 1, 3, 2 and factors 1 and 2⁶⁴ - 1: wanted {_large(want)}, got {_large(got)}.",
            why,
        )
    yield "by hand: the factor 1 keeps the smallest run, the factor -1 the largest"

    chance = np.random.default_rng(0)
    first, second = chance.integers(2**64, size=(2, 300), dtype=np.uint64)
    factors = MinHash(256).factors
    one, other, both = (
        _signature(minhash, runs, factors)
        for runs in (first, second, np.concatenate((first, second)))
    )
    if both != [min(pair) for pair in zip(one, other, strict=True)]:
        raise Mistake("The signature of two texts together isn't the smaller of theirs, each time.")
    yield "of two texts together, the smaller number of the two"

    overlapping = np.concatenate((first[:200], second[:100]))  # 200 of 400 in common
    share = np.mean(np.equal(one, _signature(minhash, overlapping, factors)))
    if abs(share - 0.5) > 0.1:
        raise Mistake(
            f"Half of all runs are common to two texts, and {share:.0%} of 256 numbers agree."
        )
    yield "half of all runs in common: about half of the numbers agree"


def _signature(minhash: Part, runs: np.ndarray, factors: np.ndarray) -> list[int]:
    got = call(minhash, runs.copy(), factors.copy(), name="minhash")
    if not isinstance(got, np.ndarray) or got.dtype != np.uint64:
        kind = f"array of {got.dtype}" if isinstance(got, np.ndarray) else describe(got)
        raise Mistake(
            f"minhash returned {kind}; an array of uint64 was wanted.",
            "uint64 numbers wrap at 2⁶⁴ by themselves. As other numbers they don't.",
        )
    if got.shape != (len(factors),):
        mutants = MUTANTS["minhash"]
        why = known(mutants, got.tolist(), lambda part: part(runs, factors).tolist())
        raise Mistake(
            f"For {len(runs)} runs and {len(factors)} functions minhash returned an array of shape "
            f"{list(got.shape)}; wanted is [{len(factors)}], a number a function.",
            why,
        )
    return got.tolist()


def _large(numbers: Iterable[int]) -> str:
    near = [f"2⁶⁴ - {2**64 - n}" if n > 2**63 else str(n) for n in numbers]
    return ", ".join(near)


def _words(name: str, count: int, start: int = 0) -> list[str]:
    return [f"{name}{number}" for number in range(start, start + count)]


_Q20, _Q25, _Q27, _Q30 = (_words("q", count) for count in (20, 25, 27, 30))
_PAGE = _words("p", 100)
_CASES = (
    (
        "a question of 20 words is in the middle of a page of 120",
        [*_PAGE[:50], *_Q20, *_PAGE[50:]],
        _Q20,
        True,
    ),
    (
        "a page shares a phrase of 13 words with a question of 40, and nothing else",
        [*_words("phrase", 13), *_PAGE],
        [*_words("phrase", 13), *_words("q", 27)],
        False,
    ),
    (
        "a question of 27 words stands there with its 14th word changed",
        [*_PAGE, *_Q27[:13], "changed", *_Q27[14:]],
        _Q27,
        True,
    ),
    (
        "of 20 words all are there in order, but the 13th and the 14th are changed",
        [*_PAGE, *_Q20[:12], "changed", "too", *_Q20[14:]],
        _Q20,
        False,
    ),
    (
        "13 words of a question stand in a row, and the other 17 in the reverse order",
        [*_Q30[:13], *_PAGE, *_Q30[:12:-1]],
        _Q30,
        False,
    ),
    (
        "of 25 words, 13 stand in a row and two more apart: 15, just 0.6 of 25",
        [*_Q25[:13], *_PAGE[:50], _Q25[15], *_PAGE[50:], _Q25[20]],
        _Q25,
        True,
    ),
    (
        "a page of 14 words is a piece of a question of 100",
        _words("q", 14, start=40),
        _words("q", 100),
        True,
    ),
    (
        "a page has the first word of a question of 15, and later its last 13",
        [_Q20[0], *_PAGE, *_Q20[2:15]],
        _Q20[:15],
        True,
    ),
    (
        "a question of 13 words is in a page word for word",
        [*_PAGE, *_Q20[:13], *_PAGE],
        _Q20[:13],
        True,
    ),
    (
        "a question of 12 words is in a page word for word",
        [*_PAGE, *_Q20[:12], *_PAGE],
        _Q20[:12],
        False,
    ),
)


def check_gives_away(gives_away: Part) -> Iterator[str]:
    """Ten pairs of texts, each there for one part of the rule."""

    def ask(part: Part) -> list[bool]:
        return [bool(part(text, question)) for _, text, question, _ in _CASES]

    answers = []
    for _, text, question, _ in _CASES:
        got = call(gives_away, list(text), list(question), name="gives_away")
        if not isinstance(got, bool | np.bool_):
            raise Mistake(f"gives_away returned {describe(got)}, and True or False was wanted.")
        answers.append(bool(got))
    for got, (what, _, _, want) in zip(answers, _CASES, strict=True):
        if got != want:
            raise Mistake(
                f"Where {what}, gives_away says {got}; wanted {want}.",
                known(MUTANTS["gives_away"], answers, ask),
            )
        yield f"{what}: {want}"
