"""What `printable_bytes`, `train_bpe` and `merge_word` have to do.

Expected merges and tokens are by hand. The last step of each contract asks the package.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qwen2lite.learn.contract import Mistake, call, describe, told_by, usual_reason
from qwen2lite.learn.mutants.bpe import MUTANTS, in_order_of_value
from qwen2lite.text import bpe

Part = Callable[..., Any]
Merges = list[tuple[bytes, bytes]]

THE_THEN_HEN = [b"the"] * 3 + [b"then"] * 2 + [b"hen"]
BANANAS = [
    *("the", "cat", "and", "the", "dog", "sat", "in", "the", "cafe,", "aaaa!", "naïve"),
    *("bananas,", "你好,", "the", "banana:", "abab", "1", "1"),
]


def check_printable_bytes(printable_bytes: Part) -> Iterator[str]:
    """The table by hand, for what can be seen and what can't, then whole and in its order."""
    got = call(printable_bytes)
    if not isinstance(got, dict) or set(got) != set(range(256)):
        raise Mistake(
            f"printable_bytes returned {_summary(got)}; a dict was wanted, with the keys 0 to 255.",
            "A key is a byte, which is a number; its value is a character.",
        )
    wanted = bpe.printable_bytes()
    yield "a character for each of the 256 bytes"
    for fact, some in (
        ("letters, digits and signs stand for themselves", b"A~0!"),
        ("a space is Ġ and a line end Ċ, which can be seen", b" \n"),
        ("and every byte is as in Qwen2's files", bytes(wanted)),
    ):
        for byte in some:
            if got[byte] != wanted[byte]:
                raise Mistake(
                    f"Byte 0x{byte:02X} is {got[byte]!r}; wanted is {wanted[byte]!r}.",
                    usual_reason(MUTANTS["printable_bytes"], got),
                )
        yield fact
    if list(got) != list(wanted):
        raise Mistake(
            f"The table begins with the bytes {list(got)[:4]} …; wanted is {list(wanted)[:4]} ….",
            told_by(in_order_of_value),
        )
    yield "in the order of the ids 0 to 255"


def check_train_bpe(train_bpe: Part) -> Iterator[str]:
    """Merges by hand: counts, ties, overlaps, borders, the end; then a text in two orders."""
    wanted = [(b"h", b"e"), (b"t", b"he"), (b"the", b"n"), (b"he", b"n")]
    for size in (257, 258, 260):
        _require_merges(train_bpe, THE_THEN_HEN, size, wanted[: size - 256])
    yield "he, the, then, hen: the most frequent pair, and counted again after each merge"
    _require_merges(train_bpe, THE_THEN_HEN, 300, wanted)
    yield "it ends where every word is one token"
    _require_merges(train_bpe, [b"on", b"no", b"\x00\x00"], 258, [(b"n", b"o"), (b"o", b"n")])
    yield "among equally frequent pairs, the smaller ids win"
    _require_merges(train_bpe, [b"bbb", b"ac", b"ac", b"ac", b"bbb", b"de"], 257, [(b"b", b"b")])
    yield "in bbb there are two bb, and one of them can be glued"
    _require_merges(train_bpe, [b"ab", b"cd", b"ab", b"cd"], 300, [(b"a", b"b"), (b"c", b"d")])
    yield "no pair reaches from word to word"

    words = [word.encode() for word in BANANAS]
    for order in (words, words[::-1]):
        _require_merges(train_bpe, order, 300, bpe.train_bpe(words, 300))
    if call(train_bpe, iter(words), 300) != bpe.train_bpe(words, 300):
        raise Mistake(
            "Given the words one by one, train_bpe finds other merges than given a list.",
            "They come from a generator and can be read only once: begin with Counter(words).",
        )
    yield "44 merges of a text in three scripts, in whatever order its words come"


def _require_merges(train_bpe: Part, words: list[bytes], size: int, wanted: Merges) -> None:
    got = call(train_bpe, words, size)
    if got == wanted:
        return
    why = usual_reason(MUTANTS["train_bpe"], got, words, size)
    asked = "the words of a text" if len(words) > 9 else b" ".join(words).decode()
    what = f"train_bpe of {asked!r} to {size} tokens"
    if not isinstance(got, list) or not all(map(_is_merge, got)):
        raise Mistake(f"{what} is {_summary(got)}; a list of pairs of bytes was wanted.", why)
    for place, (mine, right) in enumerate(itertools.zip_longest(got, wanted), start=1):
        if mine != right:
            mine, right = (_spelt(merge) if merge else "missing" for merge in (mine, right))
            raise Mistake(f"{what}: merge {place} is {mine}; wanted is {right}.", why)


def check_merge_word(merge_word: Part) -> Iterator[str]:
    """Words by hand: ranks before places and lengths, equals from the left, to the end."""
    merges = {(0, 1): 4, (1, 2): 5, (5, 3): 6, (0, 6): 7, (4, 4): 8, (0, 0): 9}
    for fact, ids, wanted in (
        ("a word without a merge stays as it is", [3, 2, 1, 0], [3, 2, 1, 0]),
        ("what was glued can be glued again", [0, 1, 0, 1], [8]),
        ("the merge that was learnt first goes first", [0, 1, 2], [4, 2]),
        (
            "and not the longest token",
            [0, 1, 2, 3],
            [4, 2, 3],
        ),
        ("wherever it stands in the word", [0, 0, 1], [0, 4]),
        ("the leftmost of equals goes first", [0, 0, 0, 2], [9, 0, 2]),
        ("an empty word has no tokens", [], []),
    ):
        _require_tokens(merge_word, ids, merges, wanted)
        yield fact
    tokens = [*map(bytes, zip(bpe.printable_bytes(), strict=True))]
    table = {}
    for left, right in bpe.train_bpe([word.encode() for word in BANANAS], 300):
        table[tokens.index(left), tokens.index(right)] = len(tokens)
        tokens.append(left + right)
    for word in (*BANANAS, "thebananadogaaaaaaa"):
        ids = [tokens.index(bytes([byte])) for byte in word.encode()]
        _require_tokens(merge_word, ids, table, bpe.merge_word(ids, table))
    yield "all words of a text, with the merges of its training"


def check_mended_merge_word(mended_merge_word: Part) -> Iterator[str]:
    """The exercise's repaired function: it has to do what merge_word does."""
    yield from check_merge_word(mended_merge_word)


def _require_tokens(
    merge_word: Part, ids: list[int], merges: dict[bpe.Pair, int], wanted: list[int]
) -> None:
    given = list(ids)
    got = call(merge_word, given, dict(merges))
    if given != ids:
        raise Mistake(
            f"merge_word changed the list it was given, {ids}, to {given}.",
            "The caller still needs it: begin with `ids = list(ids)`.",
        )
    if not isinstance(got, Sequence) or list(got) != wanted:
        why = usual_reason(MUTANTS["merge_word"], got, ids, merges)
        some = {pair: token for pair, token in merges.items() if len(merges) < 9}
        shown = f" with the merges {some}" if some else ""
        raise Mistake(f"{ids}{shown} became {_summary(got)}; wanted is {wanted}.", why)


def _is_merge(merge: Any) -> bool:
    return isinstance(merge, tuple) and len(merge) == 2 and all(isinstance(m, bytes) for m in merge)


def _spelt(merge: tuple[bytes, bytes]) -> str:
    return " + ".join(ascii(token.decode("utf-8", "backslashreplace")) for token in merge)


def _summary(value: Any) -> str:
    """A value in few words; a short list or dict as it is."""
    is_short = isinstance(value, list | tuple | dict) and len(value) < 12
    return repr(value) if is_short else describe(value)
