"""Wrong answers to the tasks of the exercise 85_speculation.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Sequence
from typing import Any


def own_token_missing(share: float, length: int) -> float:
    """Only right guesses are counted. Behind the last of them, or in the place of the first wrong one,
    the model writes a token of its own: a step gives one more."""
    return sum(share**n for n in range(1, length + 1))


def all_that_are_right(share: float, length: int) -> float:
    """Right guesses behind a wrong one are counted too. They continue a text that isn't written: the
    n-th counts only if all before it are right, and so with share to the power n."""
    return 1 + share * length


def all_or_nothing(share: float, length: int) -> float:
    """The draft counts only as a whole. If its first guesses are right, they are kept, whatever comes
    after them."""
    return 1 + length * share**length


def one_power_short(share: float, length: int) -> float:
    """One term is missing. With the model's own token there are length + 1 of them, from share to the
    power 0 up to share to the power length."""
    return sum(share**n for n in range(length))


def wrong_guess_kept(guesses: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """The first wrong guess is written, and what the model would have written in its place is thrown
    away. That is the draft's text and no longer the model's."""
    right = right_ones(guesses, chosen)
    return [*guesses[: right + 1]] if right < len(guesses) else [*chosen]


def only_the_right_ones(guesses: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """The model's own token is left out. It costs nothing more, for its scores are there; and where the
    first guess is wrong nothing at all is written, so that the text never ends."""
    return [*guesses[: right_ones(guesses, chosen)]]


def bonus_forgotten(guesses: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """After a draft that is right from end to end the model's own token is forgotten. The last row of
    scores, behind the last guess, says what comes next."""
    return [*chosen[: min(right_ones(guesses, chosen) + 1, len(guesses))]]


def everything_chosen(guesses: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """All that the model chose is written. Behind a wrong guess it was asked how a text goes on that
    isn't written: there its answers are void."""
    return [*chosen]


def those_that_agree(guesses: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """Every place where both agree is kept, also behind a wrong guess. What agrees there continues
    another text: stop at the first that doesn't."""
    agreeing = [token for guess, token in zip(guesses, chosen, strict=False) if guess == token]
    return [*agreeing, chosen[-1]]


def compared_one_later(guesses: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """A guess is compared with what the model chose *behind* it. The row of the last token written says
    what the first guess should have been, so both lists begin at the same place."""
    right = right_ones(guesses, chosen[1:])
    return [*chosen[: right + 1]]


def row_behind_the_wrong_one(guesses: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """The model's token is taken from one row too late, behind the wrong guess: the word is lost, and
    how it would have gone on is written (so it was in openvino.genai #4190)."""
    right = right_ones(guesses, chosen)
    return [*guesses[:right], chosen[min(right + 1, len(guesses))]]


def first_unchecked(guesses: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """The first guess is taken unseen. It is checked by the scores behind the last token written, which
    were left out (so it was in lattice #243)."""
    if not guesses:
        return [*chosen]
    return [guesses[0], *chosen[1 : right_ones(guesses[1:], chosen[1:]) + 2]]


def right_ones(guesses: Sequence[int], chosen: Sequence[int]) -> int:
    """How many guesses, from the first on, are what was chosen."""
    right = 0
    while right < min(len(guesses), len(chosen)) and guesses[right] == chosen[right]:
        right += 1
    return right


def by_the_formula(right: Sequence[bool], ratio: float, lengths: Sequence[int]) -> int:
    """This is the formula's answer, from the share alone. It takes every guess to be as likely as every
    other, and wrong ones come in bursts: go through the text itself."""
    share = sum(right) / len(right)
    return max(lengths, key=lambda n: sum(share**k for k in range(n + 1)) / (1 + n * ratio))


def shortened_at_the_end(right: Sequence[bool], ratio: float, lengths: Sequence[int]) -> int:
    """The last draft is cut to what is left of the text, and costs less. Here all drafts have the same
    number of guesses, also at the end: each step takes 1 + ratio · length."""

    def seconds(length: int) -> float:
        place, total = 0, 0.0
        while place < len(right):
            total += 1 + ratio * min(length, len(right) - place - 1)
            place += _kept(right, place, length) + 1
        return total

    return min(lengths, key=seconds)


def guesses_for_nothing(right: Sequence[bool], ratio: float, lengths: Sequence[int]) -> int:
    """Only the model's steps are counted. Guesses cost time too, `ratio` of a step each, or the longest
    draft would always be best."""
    return _quickest(right, 0.0, lengths)


def most_kept(right: Sequence[bool], ratio: float, lengths: Sequence[int]) -> int:
    """The length is chosen whose drafts have the greatest share of right guesses, and that is the
    shortest. What counts is the time for the whole text."""
    drafted = [length for length in lengths if length]
    return max(drafted, key=lambda n: sum(kept - 1 for kept in _written(right, n)) / n)


def own_token_not_written(right: Sequence[bool], ratio: float, lengths: Sequence[int]) -> int:
    """After a draft that is right from end to end the next step begins one token too early: the model's
    own token is written, and needn't be guessed again."""

    def seconds(length: int) -> float:
        place, total = 0, 0.0
        while place < len(right):
            kept = _kept(right, place, length)
            place += kept if kept == length and kept else kept + 1
            total += 1 + ratio * length
        return total

    return min(lengths, key=seconds)


def _kept(right: Sequence[bool], place: int, length: int) -> int:
    kept = 0
    while kept < length and place + kept < len(right) and right[place + kept]:
        kept += 1
    return kept


def _written(right: Sequence[bool], length: int) -> list[int]:
    """Tokens of each step."""
    place, steps = 0, []
    while place < len(right):
        steps.append(_kept(right, place, length) + 1)
        place += steps[-1]
    return steps


def _quickest(right: Sequence[bool], ratio: float, lengths: Sequence[int]) -> int:
    return min(lengths, key=lambda length: len(_written(right, length)) * (1 + ratio * length))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "tokens_a_step": (own_token_missing, all_that_are_right, all_or_nothing, one_power_short),
    "accepted": (
        wrong_guess_kept,
        bonus_forgotten,
        only_the_right_ones,
        everything_chosen,
        those_that_agree,
        compared_one_later,
        row_behind_the_wrong_one,
        first_unchecked,
    ),
    "best_length": (
        shortened_at_the_end,  # before the formula, which says the same where this is found out
        by_the_formula,
        guesses_for_nothing,
        most_kept,
        own_token_not_written,
    ),
}
"""The wrong versions of each task."""
