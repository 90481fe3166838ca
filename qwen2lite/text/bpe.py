r"""Byte-level BPE: start from the 256 bytes and glue the most frequent neighbours, again and again.

A token is a string of bytes. The rank of a merge is the order in which training found it, and
encoding a word replays the merges in that order.
"""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable

Pair = tuple[int, int]


def printable_bytes() -> dict[int, str]:
    """The character that stands for each byte in vocabulary files.

    Bytes that are visible in Latin-1 stand for themselves. The other 68 (space, controls, ...) get
    the characters from U+0100 on, so that " " is written "Ġ". Also gives the order of ids 0–255.

    Source: the byte table of the GPT-2 release, which Qwen2's files use.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {byte: chr(byte) for byte in visible}
    table.update({byte: chr(256 + place) for place, byte in enumerate(hidden)})
    return table


def merge_word(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """Glues the ids of one word until no pair of neighbours has a merge.

    The merge of lowest id goes first, and the leftmost of equals. Neighbours are a linked list and
    candidates a heap, so n ids take n log n steps: a word of 100,000 characters takes seconds.

    Args:
        ids: the word's bytes as ids.
        merges: (left, right) to the glued id; a lower id is an earlier merge.

    Returns:
        The word's tokens.
    """
    ids = list(ids)
    before = list(range(-1, len(ids) - 1))
    after = [*range(1, len(ids)), -1]
    heap = [
        (merges[pair], place)
        for place, pair in enumerate(itertools.pairwise(ids))
        if pair in merges
    ]
    heapq.heapify(heap)
    while heap:
        merged, left = heapq.heappop(heap)
        right = after[left]
        # A neighbour may have been glued to something else since this pair was noted.
        if right < 0 or merges.get((ids[left], ids[right])) != merged:
            continue
        ids[left], ids[right] = merged, -1
        after[left] = after[right]
        after[right] = -1
        if after[left] >= 0:
            before[after[left]] = left
        for place in (before[left], left):
            if place >= 0 and after[place] >= 0:
                candidate = merges.get((ids[place], ids[after[place]]))
                if candidate is not None:
                    heapq.heappush(heap, (candidate, place))
    return [token for token in ids if token >= 0]


def train_bpe(words: Iterable[bytes], vocab_size: int) -> list[tuple[bytes, bytes]]:
    """Finds the merges of a corpus: the most frequent pair first, recounted after each.

    Counts are kept up to date rather than made anew: a merge touches only the words that hold its
    pair. Among equally frequent pairs the one with the smaller ids wins, left id first.

    Args:
        words: the corpus, cut by `split_words` and encoded as UTF-8.
        vocab_size: tokens to end with, the 256 bytes included.

    Returns:
        The merges in order; fewer than asked for when the corpus has no pair left.

    Raises:
        ValueError: vocab_size below 256.

    Source: arXiv 1508.07909, section 3.2, on bytes.
    """
    if vocab_size < 256:
        raise ValueError(
            f"vocab_size counts the 256 bytes, so it is at least 256; got {vocab_size}"
        )
    order = {byte: token for token, byte in enumerate(printable_bytes())}
    counts = Counter(words)
    corpus = [[order[byte] for byte in word] for word in counts]
    trainer = _PairCounts(corpus, list(counts.values()))
    pieces = [bytes([byte]) for byte in printable_bytes()]
    merges = []
    while len(pieces) < vocab_size and (pair := trainer.most_frequent()):
        left, right = pieces[pair[0]], pieces[pair[1]]
        trainer.merge(pair, len(pieces))
        pieces.append(left + right)
        merges.append((left, right))
    return merges


class _PairCounts:
    """How often each pair of neighbours stands in the corpus, and in which words."""

    def __init__(self, corpus: list[list[int]], counts: list[int]):
        self.corpus = corpus
        self.counts = counts
        self.total: Counter[Pair] = Counter()
        self.where: dict[Pair, set[int]] = defaultdict(set)
        for number, word in enumerate(corpus):
            for pair in itertools.pairwise(word):
                self.total[pair] += counts[number]
                self.where[pair].add(number)
        self.heap = [(-count, pair) for pair, count in self.total.items()]
        heapq.heapify(self.heap)

    def most_frequent(self) -> Pair | None:
        while self.heap:
            noted, pair = heapq.heappop(self.heap)
            count = self.total[pair]
            if count == -noted and count > 0:
                return pair
            if 0 < count < -noted:  # has become rarer since it was noted
                heapq.heappush(self.heap, (-count, pair))
        return None

    def merge(self, pair: Pair, merged: int) -> None:
        """Replaces the pair in every word that holds it, and corrects the counts around it."""
        changed: Counter[Pair] = Counter()
        for number in self.where.pop(pair):
            old = self.corpus[number]
            new = _replace(old, pair, merged)
            times = self.counts[number]
            for lost in itertools.pairwise(old):
                changed[lost] -= times
            for gained in itertools.pairwise(new):
                changed[gained] += times
                if merged in gained:
                    self.where[gained].add(number)
            self.corpus[number] = new
        for touched, difference in changed.items():
            self.total[touched] += difference
            if difference > 0:
                heapq.heappush(self.heap, (-self.total[touched], touched))
        del self.total[pair]


def _replace(word: list[int], pair: Pair, merged: int) -> list[int]:
    """The word with every occurrence of the pair glued, from left to right."""
    glued = []
    place = 0
    while place < len(word):
        if tuple(word[place : place + 2]) == pair:
            glued.append(merged)
            place += 2
        else:
            glued.append(word[place])
            place += 1
    return glued
