r"""Byte-level BPE: start from the 256 bytes and glue the most frequent neighbours, again and again.

A token is a string of bytes. The rank of a merge is the order in which training found it, and
encoding a word replays the merges in that order.
"""

import heapq
import itertools
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Pair = tuple[int, int]
Places: TypeAlias = "array[int]"

_NOTHING = -1
"""Stands in `LinkedWords.ids` between two words, and where a token was glued to the one before."""


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
    candidates a heap, so n ids take n log n steps: a word of 100,000 characters takes some
    tenths of a second.

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
    """Finds the merges of a corpus: glues the most frequent pair, counts again, and so on.

    Among equally frequent pairs the one with the smaller ids wins, left id first. The `tokenizers`
    library has the same rule and so the same merges, down to pairs that stand only once. Its ids
    may differ: it puts control tokens first and leaves out bytes that the corpus lacks, unless
    `initial_alphabet` names them. Here, as in Qwen2's files, ids 0–255 are the bytes in the order
    of `printable_bytes`, then come the merges, and control tokens last.

    Args:
        words: the corpus, cut by `split_words` and encoded as UTF-8. Read once; only the different
            words are kept.
        vocab_size: tokens to end with, the 256 bytes included.

    Returns:
        The merges in order. A larger vocab_size only adds some at the end, and there are fewer than
        asked for when the corpus has no pair left.

    Raises:
        ValueError: vocab_size below 256.

    Source: arXiv 1508.07909, section 3.2, on bytes.
    """
    if vocab_size < 256:
        raise ValueError(
            f"vocab_size counts the 256 bytes, so it is at least 256; got {vocab_size}"
        )
    corpus = LinkedWords(Counter(words))
    tokens = [bytes([byte]) for byte in printable_bytes()]
    merges = []
    while len(tokens) < vocab_size and (pair := corpus.take_most_frequent()):
        left, right = tokens[pair[0]], tokens[pair[1]]
        corpus.merge(pair, len(tokens))
        tokens.append(left + right)
        merges.append((left, right))
    return merges


class LinkedWords:
    """The different words of a corpus end to end, each token linked to its neighbours.

    All places of a pair come up at once, when the younger of its two tokens is made; later it can
    only lose some. So the count that was noted then is never too low, and nothing has to be kept up
    to date: the pair that seems to be the most frequent is counted again, and waits its turn if it
    has become rarer. A merge touches the places of its pair, and no other word.

    About 90 bytes of memory for each byte of the different words, however often they stand.

    Args:
        counts: how often each word stands.
    """

    def __init__(self, counts: Mapping[bytes, int]):
        order = list(printable_bytes())
        to_ids = bytes(map(order.index, range(256)))
        self.ids, self.weights = array("i", [_NOTHING]), array("q", [0])
        for word, count in counts.items():
            self.ids.extend(word.translate(to_ids))
            self.ids.append(_NOTHING)
            self.weights.extend([count] * (len(word) + 1))
        self.before = array("i", range(-1, len(self.ids) - 1))
        self.after = array("i", range(1, len(self.ids) + 1))
        self.places: dict[Pair, Places] = {}
        self.heap: list[tuple[int, Pair]] = []
        found: dict[Pair, Places] = defaultdict(_no_places)
        for place, pair in enumerate(itertools.pairwise(self.ids)):
            if _NOTHING not in pair:
                found[pair].append(place)
        self._note(found)

    def take_most_frequent(self) -> Pair | None:
        """Takes the pair that stands most often; None when every word is one token."""
        while self.heap:
            noted, pair = heapq.heappop(self.heap)
            self.places[pair] = self._still_there(pair)
            count = self._count(self.places[pair])
            if count == -noted:  # and nobody's count is above what was noted
                return pair
            if count:
                heapq.heappush(self.heap, (-count, pair))
        return None

    def merge(self, pair: Pair, merged: int) -> None:
        """Glues the pair wherever it stands, from left to right, and notes what it stands beside."""
        ids, before, after = self.ids, self.before, self.after
        found: dict[Pair, Places] = defaultdict(_no_places)
        for place in self.places.pop(pair):
            if ids[place] != pair[0]:  # in "aaa" the second a is glued to the first by now
                continue
            right = after[place]
            ids[place], ids[right] = merged, _NOTHING
            after[place] = after[right]
            before[after[place]] = place
            if ids[before[place]] != _NOTHING:
                found[ids[before[place]], merged].append(before[place])
            if ids[after[place]] != _NOTHING:
                found[merged, ids[after[place]]].append(place)
        self._note(found)

    def _note(self, found: Mapping[Pair, Places]) -> None:
        self.places.update(found)
        for pair, places in found.items():
            heapq.heappush(self.heap, (-self._count(places), pair))

    def _count(self, places: Places) -> int:
        return sum(map(self.weights.__getitem__, places))

    def _still_there(self, pair: Pair) -> Places:
        left, right = pair
        ids, after = self.ids, self.after
        return array(
            "i", [p for p in self.places[pair] if ids[p] == left and ids[after[p]] == right]
        )


def _no_places() -> Places:
    return array("i")
