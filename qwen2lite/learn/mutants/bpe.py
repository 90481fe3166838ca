"""Wrong versions of what makes a vocabulary and uses it. The docstring of each says what was wrong."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qwen2lite.learn.mutants.bpe_tasks import twins_apart
from qwen2lite.text.bpe import Pair, merge_word, printable_bytes

Merges = list[tuple[bytes, bytes]]


def in_order_of_value() -> dict[int, str]:
    """The characters are right and the order is not: 0, 1, 2, … The order of this table is the
    order of ids, and Qwen2's files begin with the visible bytes, "!" having id 0."""
    return dict(sorted(printable_bytes().items()))


def every_byte_itself() -> dict[int, str]:
    """Every byte stands for the character of its own number, and so a space is a space and a line
    end a line end: files that hold a token a line can't be read back."""
    return {byte: chr(byte) for byte in _order()}


def soft_hyphen_as_it_is() -> dict[int, str]:
    """The bytes from 0xA1 to 0xFF all stand for themselves. 0xAD doesn't: in Latin-1 it is the soft
    hyphen, which can't be seen, so it gets a character from U+0100 on like the others."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}


def moved_by_value() -> dict[int, str]:
    """A hidden byte gets the character 256 + its value. It is 256 + its place among the hidden ones:
    up to the space that is the same, and at 0x7F no longer."""
    table = printable_bytes()
    return {byte: chr(256 + byte) if ord(table[byte]) > 255 else table[byte] for byte in table}


def rarest_first(words: Iterable[bytes], vocab_size: int) -> Merges:
    """The rarest pair is glued first; it is the most frequent one."""
    return _train(Counter(words), vocab_size, lambda counts: min(counts, key=_rank(counts, 1)))


def first_seen_wins(words: Iterable[bytes], vocab_size: int) -> Merges:
    """Among equally frequent pairs the one that was counted first wins, so the same words in
    another order give other merges (minbpe #90). Here the smaller ids win, left id first:
    `min(counts, key=lambda pair: (-counts[pair], pair))`."""
    return _train(Counter(words), vocab_size, lambda counts: max(counts, key=counts.__getitem__))


def larger_ids_win(words: Iterable[bytes], vocab_size: int) -> Merges:
    """Among equally frequent pairs the one with the larger ids wins. That is a rule too, and some
    courses have it; here, as in the library `tokenizers`, the smaller ids win (tokenizers #1065)."""
    return _train(Counter(words), vocab_size, lambda counts: max(counts, key=_rank(counts, 1)))


def ids_by_byte_value(words: Iterable[bytes], vocab_size: int) -> Merges:
    """The bytes have their values as ids. In Qwen2 their ids are their places in the table of
    `printable_bytes`, and where counts are equal, ids decide."""
    return _train(Counter(words), vocab_size, _most_frequent, list(range(256)))


def counted_only_once(words: Iterable[bytes], vocab_size: int) -> Merges:
    """Pairs are counted at the beginning and never again. A merge changes the counts around it, and
    only counting again finds pairs with the new token."""
    counts = _count(_split(Counter(words), _order()))
    best = sorted(counts, key=_rank(counts, -1))[: vocab_size - 256]
    names = [bytes([byte]) for byte in _order()]
    return [(names[left], names[right]) for left, right in best]


def words_counted_once(words: Iterable[bytes], vocab_size: int) -> Merges:
    """A word counts once, however often it stands in the corpus."""
    return _train(dict.fromkeys(words, 1), vocab_size, _most_frequent)


def across_words(words: Iterable[bytes], vocab_size: int) -> Merges:
    """The words are joined first, and a pair may be the end of one and the beginning of the next.
    Then "dog.", "dog!" and "dog?" become tokens of their own; merges stay inside words."""
    return _train({b"".join(words): 1}, vocab_size, _most_frequent)


def twins_counted_apart(words: Iterable[bytes], vocab_size: int) -> Merges:
    """Pairs that overlap are counted once: "aaa" as one "aa", since only one can be glued. Some
    trainers do that (sentencepiece #318). Here, as in the library `tokenizers`, "aaa" has two."""
    return _train(Counter(words), vocab_size, _most_frequent, count=twins_apart)


def from_the_left(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """Glues the first pair from the left that has a merge. It has to be the pair whose merge was
    learnt first, wherever it stands: with this bug an engine split 58 % of English words otherwise
    than Qwen2 was trained on (fastllm #715)."""
    ids = list(ids)
    place = 0
    while place + 1 < len(ids):
        merged = merges.get((ids[place], ids[place + 1]))
        if merged is None:
            place += 1
        else:
            ids[place : place + 2] = [merged]
            place = max(place - 1, 0)
    return ids


def longest_first(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """Takes the longest token that the word begins with, and goes on after it. That is what a
    dictionary would do and often gives the same; but the model has only seen texts whose merges were
    replayed in the order in which they were learnt (llm.go #2)."""
    parts = {merged: pair for pair, merged in merges.items()}

    def bytes_of(token: int) -> tuple[int, ...]:
        return sum(map(bytes_of, parts[token]), ()) if token in parts else (token,)

    known = {bytes_of(token): token for token in parts}
    found, place = [], 0
    while place < len(ids):
        ends = [end for end in range(len(ids), place, -1) if tuple(ids[place:end]) in known]
        end = ends[0] if ends else place + 1
        found.append(known.get(tuple(ids[place:end]), ids[place]))
        place = end
    return found


def latest_first(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """Glues the pair whose merge was learnt last. The order of training is the other way round: the
    lowest id first."""
    return _glue_one_by_one(ids, merges, lambda found: max(found, key=lambda f: (f[0], -f[1])))


def rightmost_of_equals(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """Where a pair stands several times, glues the last one first, so that "aaa" becomes "a", "aa".
    It is the leftmost: "aa", "a"."""
    return _glue_one_by_one(ids, merges, lambda found: min(found, key=lambda f: (f[0], -f[1])))


def glued_only_once(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """Ends after the first merge. What was glued may be half of another pair: go on until no pair of
    neighbours has a merge."""
    pairs = list(itertools.pairwise(ids))
    known = [pair for pair in pairs if pair in merges]
    if not known:
        return list(ids)
    first = min(known, key=merges.__getitem__)
    return merge_word(ids, {first: merges[first]})


def _order() -> list[int]:
    return list(printable_bytes())


def _rank(counts: Mapping[Pair, int], sign: int) -> Callable[[Pair], tuple[int, Pair]]:
    return lambda pair: (sign * counts[pair], pair)


def _most_frequent(counts: Mapping[Pair, int]) -> Pair:
    return min(counts, key=_rank(counts, -1))


def _split(words: Mapping[bytes, int], order: list[int]) -> dict[tuple[int, ...], int]:
    return {tuple(map(order.index, word)): times for word, times in words.items()}


def _count(words: Mapping[tuple[int, ...], int]) -> Counter[Pair]:
    counts: Counter[Pair] = Counter()
    for word, times in words.items():
        for pair in itertools.pairwise(word):
            counts[pair] += times
    return counts


def _train(
    words: Mapping[bytes, int],
    vocab_size: int,
    choose: Callable[[Counter[Pair]], Pair],
    order: list[int] | None = None,
    count: Callable[[Mapping[tuple[int, ...], int]], Counter[Pair]] = _count,
) -> Merges:
    """BPE by counting everything again, with what may go wrong as arguments."""
    order = order or _order()
    names, merges = [bytes([byte]) for byte in order], []
    corpus = _split(words, order)
    while len(names) < vocab_size and (counts := count(corpus)):
        pair = choose(counts)
        table = {pair: len(names)}
        corpus = {tuple(merge_word(list(word), table)): n for word, n in corpus.items()}
        merges.append((names[pair[0]], names[pair[1]]))
        names.append(names[pair[0]] + names[pair[1]])
    return merges


def _glue_one_by_one(
    ids: list[int],
    merges: dict[Pair, int],
    choose: Callable[[list[tuple[int, int]]], tuple[int, int]],
) -> list[int]:
    ids = list(ids)
    while True:
        pairs = enumerate(itertools.pairwise(ids))
        found = [(merges[pair], place) for place, pair in pairs if pair in merges]
        if not found:
            return ids
        merged, place = choose(found)
        ids[place : place + 2] = [merged]


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "printable_bytes": (
        in_order_of_value,
        every_byte_itself,
        soft_hyphen_as_it_is,
        moved_by_value,
    ),
    "train_bpe": (
        rarest_first,
        first_seen_wins,
        larger_ids_win,
        ids_by_byte_value,
        counted_only_once,
        words_counted_once,
        across_words,
        twins_counted_apart,
    ),
    "merge_word": (
        from_the_left,
        longest_first,
        latest_first,
        rightmost_of_equals,
        glued_only_once,
    ),
}
"""The wrong versions of each function."""
