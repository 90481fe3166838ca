"""Wrong answers to the small tasks of the exercise 11_bpe: counting, glueing, decoding."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from qwen2lite.text.bpe import Pair

Word = tuple[int, ...]


def without_counts(words: Mapping[Word, int]) -> Counter[Pair]:
    """How often a word stands in the corpus is not used: add the word's count, not 1."""
    return Counter(pair for word in words for pair in itertools.pairwise(word))


def once_a_word(words: Mapping[Word, int]) -> Counter[Pair]:
    """A pair that stands several times in one word is counted once there. Every place counts, and in
    (7, 7, 7) there are two, though they overlap."""
    counts: Counter[Pair] = Counter()
    for word, times in words.items():
        for pair in set(itertools.pairwise(word)):
            counts[pair] += times
    return counts


def twins_apart(words: Mapping[Word, int]) -> Counter[Pair]:
    """Pairs that overlap are counted once: (7, 7, 7) as one (7, 7), since only one can be glued. Some
    trainers do that (minbpe #51 and #72). Here neighbours count, and it has two."""
    counts: Counter[Pair] = Counter()
    for word, times in words.items():
        twin_before = False
        for left, right in itertools.pairwise(word):
            twin_before = left == right and not twin_before
            if left != right or twin_before:
                counts[left, right] += times
    return counts


def across_borders(words: Mapping[Word, int]) -> Counter[Pair]:
    """The last id of a word and the first of the next are counted as a pair. A pair lies inside a
    word: begin anew with each."""
    counts: Counter[Pair] = Counter()
    last: Word = ()
    for word, times in words.items():
        for pair in itertools.pairwise(last + word):
            counts[pair] += times
        last = word[-1:]
    return counts


def in_either_order(words: Mapping[Word, int]) -> Counter[Pair]:
    """(1, 2) and (2, 1) are counted as the same pair. "on" is not "no"."""
    counts: Counter[Pair] = Counter()
    for word, times in words.items():
        for left, right in itertools.pairwise(word):
            counts[min(left, right), max(left, right)] += times
    return counts


def only_the_first(word: Word, pair: Pair, merged: int) -> Word:
    """Only the first occurrence is glued. All of them are: go on after it."""
    for place, found in enumerate(itertools.pairwise(word)):
        if found == pair:
            return (*word[:place], merged, *word[place + 2 :])
    return word


def from_the_right(word: Word, pair: Pair, merged: int) -> Word:
    """Glues from right to left, so that (5, 5, 5) becomes (5, 9). From the left it is (9, 5)."""
    return _glue(word[::-1], pair[::-1], merged)[::-1]


def overlapping(word: Word, pair: Pair, merged: int) -> Word:
    """After a pair it goes on by one id, so the second half of the pair is used again. Two ids were
    glued: go on by two."""
    out, place = [], 0
    while place < len(word):
        if word[place : place + 2] == pair:
            out.append(merged)
            if word[place + 1 : place + 3] != pair:
                place += 1
        else:
            out.append(word[place])
        place += 1
    return tuple(out)


def last_one_lost(word: Word, pair: Pair, merged: int) -> Word:
    """A word that doesn't end in the pair loses its last id. A loop over pairs has one step less than
    the word has ids: what is left at the end has to be copied too."""
    glued = _glue(word, pair, merged)
    return glued if word[-2:] == pair else glued[:-1]


def _glue(word: Word, pair: Pair, merged: int) -> Word:
    out: list[int] = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] = merged
        else:
            out.append(token)
    return tuple(out)


def token_by_token(ids: list[int], tokens: list[bytes]) -> str:
    """Every token is decoded by itself. A character of several bytes may lie in two tokens, and
    neither half is UTF-8: join the bytes first, and decode once (speech-swift #41)."""
    return "".join(tokens[i].decode("utf-8", "replace") for i in ids)


def left_out(ids: list[int], tokens: list[bytes]) -> str:
    """Bytes that are no UTF-8 vanish. They should show, as U+FFFD: `errors="replace"`."""
    return b"".join(tokens[i] for i in ids).decode("utf-8", "ignore")


def ends_at_the_first_bad_byte(ids: list[int], tokens: list[bytes]) -> str:
    """The text ends at the first bytes that are no UTF-8, and all that follows is lost. Only they
    become U+FFFD, the rest is decoded as ever: `errors="replace"` goes on."""
    joined = b"".join(tokens[i] for i in ids)
    try:
        return joined.decode()
    except UnicodeDecodeError as error:
        return joined[: error.start].decode() + "\ufffd"


def as_latin_1(ids: list[int], tokens: list[bytes]) -> str:
    """Every byte becomes a character of its own, as in Latin-1. The bytes are UTF-8, where "ü" takes
    two and "猫" three."""
    return b"".join(tokens[i] for i in ids).decode("latin-1")


def with_spaces(ids: list[int], tokens: list[bytes]) -> str:
    """Spaces are put between tokens. A space is part of the token after it already: join with
    nothing."""
    return b" ".join(tokens[i] for i in ids).decode("utf-8", "replace")


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "count_pairs": (without_counts, once_a_word, twins_apart, across_borders, in_either_order),
    "merge_pair": (only_the_first, from_the_right, overlapping, last_one_lost),
    "decode_ids": (
        token_by_token,
        left_out,
        ends_at_the_first_bad_byte,
        as_latin_1,
        with_spaces,
    ),
}
"""The wrong versions of each task."""
