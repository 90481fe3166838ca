"""Wrong answers to the tasks of the exercise 54_needle."""

from collections.abc import Callable, Sequence
from typing import Any

Ask = Callable[[int, float, int], bool]


def depth_from_the_end(sentences: Sequence[str], needle: str, depth: float) -> list[str]:
    """The depth is counted from the end. 0 is the beginning of the text."""
    return _inserted(sentences, needle, len(sentences) - round(depth * len(sentences)))


def never_last(sentences: Sequence[str], needle: str, depth: float) -> list[str]:
    """At depth 1 a sentence still follows. With n sentences there are n + 1 places, from 0 to n."""
    return _inserted(sentences, needle, round(depth * (len(sentences) - 1)))


def in_place_of_a_sentence(sentences: Sequence[str], needle: str, depth: float) -> list[str]:
    """The needle takes a sentence's place. It comes between them, and none is lost."""
    at = min(round(depth * len(sentences)), len(sentences) - 1)
    return [needle if n == at else sentence for n, sentence in enumerate(sentences)]


def cut_off(sentences: Sequence[str], needle: str, depth: float) -> list[str]:
    """The place is cut to a whole number with int, and so is on average half a sentence too early:
    round it."""
    return _inserted(sentences, needle, int(depth * len(sentences)))


def equal_parts(sentences: Sequence[str], needle: str, depth: float) -> list[str]:
    """Each of the n + 1 places has an equal part of the depths, so the ends have as much as those
    between. Wanted is the place nearest to depth * n: round that."""
    places = len(sentences)
    return _inserted(sentences, needle, min(places, int(depth * (places + 1))))


def into_what_was_given(sentences: list[str], needle: str, depth: float) -> list[str]:
    """The list that was given is changed, so the next text has this needle as well: copy it first."""
    sentences.insert(round(depth * len(sentences)), needle)
    return sentences


def _inserted(sentences: Sequence[str], needle: str, at: int) -> list[str]:
    return [*sentences[:at], needle, *sentences[at:]]


def depths_by_lengths(
    ask: Ask, lengths: Sequence[int], depths: Sequence[float], tries: int
) -> list[list[float]]:
    """Rows and columns are exchanged: a row is a length, a column a depth."""
    rows = _grid(ask, lengths, depths, tries)
    return [list(column) for column in zip(*rows, strict=True)]


def counted(
    ask: Ask, lengths: Sequence[int], depths: Sequence[float], tries: int
) -> list[list[float]]:
    """These are numbers of needles found. The share is that, divided by the tries."""
    return [[share * tries for share in row] for row in _grid(ask, lengths, depths, tries)]


def found_at_all(
    ask: Ask, lengths: Sequence[int], depths: Sequence[float], tries: int
) -> list[list[float]]:
    """A cell counts as found if any try was. Its share is wanted; one lucky try is not all of
    them."""
    return [[float(share > 0) for share in row] for row in _grid(ask, lengths, depths, tries)]


def one_try_again_and_again(
    ask: Ask, lengths: Sequence[int], depths: Sequence[float], tries: int
) -> list[list[float]]:
    """Every try has the number 0, and so the same key: the share can only be 0 or 1."""
    return _grid(lambda length, depth, _: ask(length, depth, 0), lengths, depths, tries)


def _grid(
    ask: Ask, lengths: Sequence[int], depths: Sequence[float], tries: int
) -> list[list[float]]:
    def share(length: int, depth: float) -> float:
        return sum(ask(length, depth, number) for number in range(tries)) / tries

    return [[share(length, depth) for depth in depths] for length in lengths]


def prompt_counts(prompts: Sequence[str], outputs: Sequence[str], keys: Sequence[str]) -> float:
    """The outputs begin with the prompt, and the prompt holds the key: it is always found. Only what
    the model wrote behind it counts."""
    pairs = list(zip(outputs, keys, strict=True))
    return sum(key in output for output, key in pairs) / len(pairs)


def somewhere_in_the_answer(
    prompts: Sequence[str], outputs: Sequence[str], keys: Sequence[str]
) -> float:
    """The key counts wherever it stands in the answer. A model that goes on and on writes many
    numbers: the answer has to begin with the key."""
    rows = list(zip(prompts, outputs, keys, strict=True))
    return sum(key in output[len(prompt) :] for prompt, output, key in rows) / len(rows)


def share_of_digits(prompts: Sequence[str], outputs: Sequence[str], keys: Sequence[str]) -> float:
    """Single digits are counted. A key is found as a whole, or not."""
    rows = list(zip(prompts, outputs, keys, strict=True))
    right = [
        sum(a == b for a, b in zip(output[len(prompt) :].strip(), key, strict=False)) / len(key)
        for prompt, output, key in rows
    ]
    return sum(right) / len(right)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "hide": (
        cut_off,  # at some depths it answers like never_last, which shows at depth 1 alone
        depth_from_the_end,
        never_last,
        in_place_of_a_sentence,
        equal_parts,
        into_what_was_given,
    ),
    "recall_grid": (depths_by_lengths, counted, found_at_all, one_try_again_and_again),
    "share_found": (prompt_counts, somewhere_in_the_answer, share_of_digits),
}
"""The wrong versions of each task."""
