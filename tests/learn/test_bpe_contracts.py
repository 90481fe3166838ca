"""The contracts of lesson 11 accept every right answer and tell wrong ones in a clear sentence."""

import heapq
import itertools
import re
from collections import Counter, defaultdict
from functools import reduce

import pytest

from qwen2lite.text import bpe
from tests.learn.verdict import verdict


def table_by_condition():
    visible = [b for b in range(256) if 33 <= b <= 126 or (b >= 161 and b != 173)]
    hidden = [b for b in range(256) if not (33 <= b <= 126 or (b >= 161 and b != 173))]
    return {**{b: chr(b) for b in visible}, **{b: chr(256 + n) for n, b in enumerate(hidden)}}


def table_by_printing():
    table, count = {}, itertools.count(256)
    for byte in range(256):
        if chr(byte).isprintable() and byte not in (32, 160):
            table[byte] = chr(byte)
    for byte in range(256):
        table.setdefault(byte, None) or table.update({byte: chr(next(count))})
    return table


def table_by_counting():
    table, moved = {}, {}
    for byte in range(256):
        seen = bytes([byte]).decode("latin-1")
        if re.fullmatch(r"[!-~¡-¬®-ÿ]", seen):
            table[byte] = seen
        else:
            moved[byte] = chr(256 + len(moved))
    return table | moved


def count_by_loops(words):
    counts = {}
    for word, times in words.items():
        for i in range(len(word) - 1):
            counts[word[i], word[i + 1]] = counts.get((word[i], word[i + 1]), 0) + times
    return counts


def count_by_zip(words):
    counts = defaultdict(int)
    for word in words:
        for pair in ((word[i], word[i + 1]) for i in range(len(word) - 1)):
            counts[pair] += words[word]
    return counts


def count_by_sum(words):
    written_out = [word for word, times in words.items() for _ in range(times)]
    return sum((Counter(itertools.pairwise(word)) for word in written_out), Counter())


def merge_by_while(word, pair, merged):
    out, i = [], 0
    while i < len(word):
        step = 2 if word[i : i + 2] == pair else 1
        out.append(merged if step == 2 else word[i])
        i += step
    return tuple(out)


def merge_by_stack(word, pair, merged):
    def push(done, token):
        return (*done[:-1], merged) if done and (done[-1], token) == pair else (*done, token)

    return reduce(push, word, ())


def merge_by_recursion(word, pair, merged):
    if len(word) < 2:
        return word
    if word[:2] == pair:
        return (merged, *merge_by_recursion(word[2:], pair, merged))
    return (word[0], *merge_by_recursion(word[1:], pair, merged))


def train_by_recount(words, vocab_size):
    tokens = [bytes([b]) for b in table_by_condition()]
    order = {token: i for i, token in enumerate(tokens)}
    corpus = Counter(tuple(order[bytes([b])] for b in word) for word in words)
    merges = []
    while len(tokens) < vocab_size:
        counts = count_by_loops(corpus)
        if not counts:
            break
        left, right = max(counts, key=lambda p: (counts[p], -p[0], -p[1]))
        corpus = {merge_by_while(w, (left, right), len(tokens)): n for w, n in corpus.items()}
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return merges


def train_with_bytes(words, vocab_size):
    """Tokens are bytes all along, and a dict of ranks breaks ties."""
    ranks = {bytes([b]): i for i, b in enumerate(table_by_condition())}
    corpus = [[bytes([b]) for b in word] for word in words]
    merges = []
    for _ in range(vocab_size - 256):
        counts = Counter(pair for word in corpus for pair in itertools.pairwise(word))
        if not counts:
            return merges
        best = sorted(counts, key=lambda p: (-counts[p], ranks[p[0]], ranks[p[1]]))[0]
        merges.append(best)
        ranks[b"".join(best)] = len(ranks)
        corpus = [list(merge_by_stack(tuple(w), best, b"".join(best))) for w in corpus]
    return merges


def train_with_the_package(words, vocab_size):
    return bpe.train_bpe(words, vocab_size)


def encode_by_replaying(ids, merges):
    word = tuple(ids)
    for pair in sorted(merges, key=merges.get):
        word = merge_by_while(word, pair, merges[pair])
    return list(word)


def encode_by_searching(ids, merges):
    ids = list(ids)
    while len(ids) > 1:
        ranks = [merges.get(p, 10**9) for p in itertools.pairwise(ids)]
        place = ranks.index(min(ranks))
        if ranks[place] == 10**9:
            break
        ids[place : place + 2] = [ranks[place]]
    return ids


def encode_by_heap(ids, merges):
    ids = list(ids)
    while heap := [(merges[p], i) for i, p in enumerate(itertools.pairwise(ids)) if p in merges]:
        heapq.heapify(heap)
        merged, place = heap[0]
        ids = [*ids[:place], merged, *ids[place + 2 :]]
    return ids


def decode_by_buffer(ids, tokens):
    buffer = bytearray()
    for i in ids:
        buffer += tokens[i]
    return buffer.decode(errors="replace")


RIGHT = [
    *(("printable_bytes", f) for f in (table_by_condition, table_by_printing, table_by_counting)),
    *(("count_pairs", f) for f in (count_by_loops, count_by_zip, count_by_sum)),
    *(("merge_pair", f) for f in (merge_by_while, merge_by_stack, merge_by_recursion)),
    *(("train_bpe", f) for f in (train_by_recount, train_with_bytes, train_with_the_package)),
    *(("merge_word", f) for f in (encode_by_replaying, encode_by_searching, encode_by_heap)),
    ("mended_merge_word", encode_by_searching),
    ("decode_ids", decode_by_buffer),
    ("decode_ids", lambda ids, tokens: b"".join(tokens[i] for i in ids).decode("utf-8", "replace")),
    ("decode_ids", lambda ids, tokens: str(b"".join(map(tokens.__getitem__, ids)), "utf8", "replace")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def reads_its_words_twice(words, vocab_size):
    list(words)
    return train_by_recount(words, vocab_size)


def never_ends(words, vocab_size):
    merges = train_by_recount(words, vocab_size)
    return merges if len(merges) == vocab_size - 256 else [*merges, max([])]


def changes_its_list(ids, merges):
    ids[:] = encode_by_searching(ids, merges)
    return ids


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("printable_bytes", lambda: [chr(b) for b in range(256)], "returned list; a dict"),
        ("printable_bytes", lambda: {chr(b): b for b in range(256)}, "keys 0 to 255"),
        ("printable_bytes", lambda: dict.fromkeys(range(256), "."), "Byte 0x41 is '.'"),
        ("count_pairs", lambda words: [(1, 2)], "and yours list"),
        ("count_pairs", lambda words: {}, "are {(1, 2): 2, (2, 3): 7}, and yours {}"),
        ("merge_pair", lambda w, p, m: list(merge_by_while(w, p, m)), "got [9, 3, 9]"),
        ("merge_pair", lambda w, p, m: w, "wanted (9, 3, 9), got (1, 2, 3, 1, 2)"),
        ("train_bpe", lambda words, size: None, "returned None"),
        ("train_bpe", lambda words, size: [(104, 101)], "a list of pairs of bytes was wanted"),
        ("train_bpe", lambda words, size: [], "merge 1 is missing; wanted is 'h' + 'e'"),
        ("train_bpe", never_ends, "ValueError: max() "),
        ("merge_word", changes_its_list, "changed the list it was given"),
        ("merge_word", lambda ids, merges: ids[:], "[0, 1, 0, 1] with the merges"),
        ("merge_word", lambda ids, merges: len(ids), "became 4"),
        ("decode_ids", lambda ids, tokens: b"".join(tokens[i] for i in ids), "yours is bytes"),
        ("decode_ids", lambda ids, tokens: "".join(tokens[i].decode() for i in ids), "UnicodeDecode"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def test_words_from_a_generator_are_read_once():
    result = verdict("train_bpe", reads_its_words_twice)
    assert result.wrong.startswith("Given the words one by one")
