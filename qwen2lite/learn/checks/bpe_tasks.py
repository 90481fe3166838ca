"""What the exercise 11_bpe asks beside the package's functions: counting, glueing, decoding."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qwen2lite.learn.contract import Mistake, call, describe, usual_reason
from qwen2lite.learn.mutants.bpe_tasks import MUTANTS

Part = Callable[..., Any]


def check_count_pairs(count_pairs: Part) -> Iterator[str]:
    """Counts by hand: of words that stand more than once, of pairs that overlap, of short words."""
    for fact, words, wanted in (
        (
            "a pair counts as often as its words stand",
            {(1, 2, 3): 2, (2, 3): 5},
            {(1, 2): 2, (2, 3): 7},
        ),
        ("and at every place in a word", {(4, 5, 4, 5): 3}, {(4, 5): 6, (5, 4): 3}),
        ("also where places overlap: three (7, 7) in (7, 7, 7, 7)", {(7, 7, 7, 7): 3}, {(7, 7): 9}),
        ("nothing from word to word", {(1, 2): 1, (3,): 1, (4, 1): 1}, {(1, 2): 1, (4, 1): 1}),
        ("and nothing where there is no pair", {(): 4, (3,): 1}, {}),
    ):
        got = call(count_pairs, dict(words))
        if not isinstance(got, Mapping) or dict(got) != wanted:
            why = usual_reason(MUTANTS["count_pairs"], got, words)
            shown = dict(got) if isinstance(got, Mapping) else describe(got)
            raise Mistake(f"The pairs of {words} are {wanted}, and yours {shown}.", why)
        yield fact


def check_merge_pair(merge_pair: Part) -> Iterator[str]:
    """Words by hand: every occurrence, from the left, and nothing else."""
    for fact, word, pair, wanted in (
        ("every occurrence is glued", (1, 2, 3, 1, 2), (1, 2), (9, 3, 9)),
        ("what isn't the pair stays, also at the end", (2, 1, 2, 2), (1, 2), (2, 9, 2)),
        ("from left to right, and no id is used twice", (5, 5, 5), (5, 5), (9, 5)),
        ("so four make two", (5, 5, 5, 5), (5, 5), (9, 9)),
        ("a word without the pair stays as it is", (2, 1), (1, 2), (2, 1)),
        ("and so do short ones", (1,), (1, 2), (1,)),
    ):
        got = call(merge_pair, word, pair, 9)
        if got != wanted:
            why = usual_reason(MUTANTS["merge_pair"], got, word, pair, 9)
            shown = got if isinstance(got, list | tuple) else describe(got)
            if isinstance(got, list):
                why = why or "A list can't be the key of a dict; return tuple(…)."
            raise Mistake(f"{pair} to 9 in {word}: wanted {wanted}, got {shown}.", why)
        yield fact


def check_decode_ids(decode_ids: Part) -> Iterator[str]:
    """Texts by hand: a word, a character in two tokens, half a character."""
    tokens = [b"The", b" c", b"at", b"\xe7", b"\x8c\xab", b" \xe7", b"\xc3\xbc"]
    for fact, ids, wanted in (
        ("tokens are joined as they are", [0, 1, 2], "The cat"),
        ("a character of two bytes is one", [0, 6], "Theü"),
        ("a character may lie in two tokens", [0, 5, 4, 1], "The 猫 c"),
        ("half a character shows as U+FFFD", [1, 3], " c\ufffd"),
        ("and the text goes on after it", [1, 3, 2], " c\ufffdat"),
        ("no ids are no text", [], ""),
    ):
        got = call(decode_ids, list(ids), list(tokens))
        if got != wanted:
            why = usual_reason(MUTANTS["decode_ids"], got, ids, tokens)
            pieces = [tokens[i] for i in ids]
            raise Mistake(f"{pieces} is {wanted!r}, and yours is {describe(got)}.", why)
        yield fact
