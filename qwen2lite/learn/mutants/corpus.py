"""Wrong versions of what a corpus is filtered with: signatures, and the rule against leaks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qwen2lite.train.decontaminate import common_subsequence

Words = Sequence[str]


def one_hash_for_all(runs: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """All numbers come from one hash function. Then they agree all together or not at all, and the
    share says 0 or 1, whatever the similarity is (functions that are too much alike make it waver
    for the same reason: fzdupl #42)."""
    return np.full(len(factors), (factors[0] * runs).min())


def smallest_before_hashing(runs: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The smallest run is looked for first and hashed then, or the products are compared before
    they are cut to 64 bits: so every function picks the same run. Each has to order them anew."""
    return (factors * runs.min()).ravel()


def over_the_functions(runs: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The minimum runs over the functions. It runs over the runs of the text, so that a number is
    left for each function, whatever the length of the text."""
    return (factors * runs).min(axis=0)


def smallest_of_one(runs: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """These are the smallest numbers of one function, a "bottom sketch". It exists, but two of them
    are compared as sets and not place by place (sourmash took one for the other: #187)."""
    return np.sort(factors[0] * runs)[: len(factors)]


def _shares_a_run(text: Words, question: Words) -> bool:
    runs = {tuple(question[i : i + 13]) for i in range(len(question) - 12)}
    return any(tuple(text[i : i + 13]) in runs for i in range(len(text) - 12))


def _enough(common: int, text: Words, question: Words) -> bool:
    return common >= max(13, 0.6 * min(len(text), len(question)))


def run_is_enough(text: Words, question: Words) -> bool:
    """13 words in a row are taken for a leak by themselves. Set phrases and code share that often:
    by this test alone three quarters of HumanEval would be leaked (Qwen2 report, table 15)."""
    return _shares_a_run(text, question)


def no_run_asked(text: Words, question: Words) -> bool:
    """Nobody asks for 13 words in a row. Two texts on one subject have many words in the same
    order; the long common subsequence comes on top of the run."""
    return _enough(common_subsequence(text, question), text, question)


def without_gaps(text: Words, question: Words) -> bool:
    """The longest common *substring* is measured, without gaps. A subsequence may leave words out
    on both sides; so one changed word in the middle hides the leak."""
    longest, before = 0, [0] * (len(question) + 1)
    for word in text:
        row = [0]
        for place, other in enumerate(question):
            row.append(before[place] + 1 if word == other else 0)
        longest, before = max(longest, *row), row
    return _shares_a_run(text, question) and _enough(longest, text, question)


def in_any_order(text: Words, question: Words) -> bool:
    """Common words are counted in any order. In a subsequence they stand in the same order in both
    texts; else "the" and "of" alone would make leaks of long texts."""
    common = len(set(text) & set(question))
    return _shares_a_run(text, question) and _enough(common, text, question)


def share_of_the_longer(text: Words, question: Words) -> bool:
    """The share is taken of the longer text. A question within a long page never makes 0.6 of the
    page: it is the *shorter* of the two that counts."""
    common = common_subsequence(text, question)
    share = 0.6 * max(len(text), len(question))
    return _shares_a_run(text, question) and common >= max(13, share)


def more_than_the_share(text: Words, question: Words) -> bool:
    """The border itself is left out: exactly 0.6 of the shorter text is enough, `>=`."""
    common = common_subsequence(text, question)
    share = 0.6 * min(len(text), len(question))
    return _shares_a_run(text, question) and common >= 13 and common > share


def last_run_missed(text: Words, question: Words) -> bool:
    """The last run of a text is never asked about: n words have n - 12 runs of 13, not n - 13."""
    common = common_subsequence(text, question)
    return _shares_a_run(text[:-1], question[:-1]) and _enough(common, text, question)


def more_than_13(text: Words, question: Words) -> bool:
    """The border itself is left out: 13 words in common are enough, `>=`."""
    common = common_subsequence(text, question)
    return _shares_a_run(text, question) and _enough(common, text, question) and common > 13


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "minhash": (
        one_hash_for_all,
        smallest_before_hashing,
        over_the_functions,
        smallest_of_one,
    ),
    "gives_away": (
        run_is_enough,
        no_run_asked,
        without_gaps,
        in_any_order,
        share_of_the_longer,
        more_than_the_share,
        last_run_missed,
        more_than_13,
    ),
}
"""The wrong versions of each task."""
