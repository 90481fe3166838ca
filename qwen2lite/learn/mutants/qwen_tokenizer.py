r"""Wrong ways to cut a text into words and to encode it, each a mistake that real projects made.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import unicodedata
from collections.abc import Callable
from typing import Any

from qwen2lite.learn.mutants.split_control import pieces_of
from qwen2lite.text.pretokenize import PATTERN, normalise, split_words

EncodeWord = Callable[[str], list[int]]


def decimal_digits_only() -> str:
    r"""`\d` knows digits only. "½" and "²" are no letters, no digits and no signs, so no alternative
    takes them and they are lost. `\p{N}` is every sign for a number."""
    return PATTERN.replace(r"|\p{N}|", r"|\d|")


def other_numbers_as_signs() -> str:
    r"""Signs for numbers that are no digits, such as "½" and "²", are taken for signs: neither `\d` nor
    `\w` knows them. `\p{N}` is every sign for a number."""
    return PATTERN.replace(r"\p{N}", r"\d")


def digits_in_threes() -> str:
    """Up to three digits stay together, as in GPT-4's pattern. In Qwen2's every digit is alone
    (an engine that fell back on another pattern cut Qwen's numbers so: kekzl/imp #657)."""
    return PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def signs_one_by_one() -> str:
    """Every sign is a word of its own. A run of signs stays together, or "->" can never be one
    token: the + is missing (in kekzl/imp #657 code took a fifth more tokens)."""
    return PATTERN.replace(r"]+[\r\n]*", r"][\r\n]*")


def signs_without_line_ends() -> str:
    r"""Line ends after signs are cut off. They belong to the signs, so that "{\n" can be one token:
    `[\r\n]*` follows."""
    return PATTERN.replace(r"]+[\r\n]*", r"]+")


def line_feeds_after_signs() -> str:
    r"""Only "\n" may follow signs. Text from Windows ends its lines with "\r\n", and that is cut off:
    `[\r\n]*` takes both."""
    return PATTERN.replace(r"]+[\r\n]*", r"]+\n*")


def one_line_end_after_signs() -> str:
    r"""Of several line ends "\r\n" after signs only the first stays with them. `[\r\n]*` takes both
    characters in any order, as often as they come."""
    return PATTERN.replace(r"]+[\r\n]*", r"]+\r?\n*")


def line_feed_has_to_follow() -> str:
    r"""A "\r" after signs is cut off where no "\n" follows. It is a line end by itself too: `[\r\n]*`
    takes both characters in any order."""
    return PATTERN.replace(r"]+[\r\n]*", r"]+(?:\r?\n)*")


def tab_before_signs() -> str:
    r"""A tab is glued to the signs after it. Before letters any sign or space may stand, but before
    signs only a space: ` ?`."""
    return PATTERN.replace(r"| ?[^\s", r"|[ \t]?[^\s")


def any_white_space_before_signs() -> str:
    r"""Any white space may stand before signs (`\s?`), so a line end is glued to the signs of the
    next line. Only a space may: ` ?`."""
    return PATTERN.replace(r"| ?[^\s", r"|\s?[^\s")


def line_end_before_letters() -> str:
    r"""A line end is glued to the letters of the next line. Line ends are words of their own there:
    keep them out of what may stand before letters, `[^\r\n\p{L}\p{N}]?`."""
    return PATTERN.replace(r"[^\r\n\p{L}", r"[^\p{L}")


def carriage_return_before_letters() -> str:
    r"""A "\r" is glued to the letters after it. It is a line end too, and stands alone in some old
    files: neither it nor "\n" may stand before letters, `[^\r\n\p{L}\p{N}]?`."""
    return PATTERN.replace(r"[^\r\n\p{L}", r"[^\n\p{L}")


def only_a_space_before_letters() -> str:
    """Only a space may stand before letters, as in GPT-2's pattern. In Qwen2's it is any one
    character but a line end, a letter or a digit, so that ".append" and "(x" are words."""
    return PATTERN.replace(r"|[^\r\n\p{L}\p{N}]?\p{L}+", r"| ?\p{L}+")


def letters_of_english() -> str:
    r"""Only a to z count as letters, and "é" or "猫" become signs. Letters of all scripts are
    \p{L}."""
    return PATTERN.replace(r"\p{L}", "A-Za-z").replace("?A-Za-z+", "?[A-Za-z]+")


def letters_and_marks() -> str:
    r"""Marks count as letters (\p{M}). That would be kinder to Thai and Hindi, where vowels are
    marks, but Qwen2's pattern cuts there."""
    return PATTERN.replace(r"\p{L}+", r"[\p{L}\p{M}]+")


def every_space_together() -> str:
    """All spaces before a word stay together. The last one belongs to the word, since " at" is one
    token: the pattern has to look ahead, (?!...)."""
    return PATTERN.replace(r"|\s+(?!\S)", "")


def spaces_stay_behind_alone() -> str:
    r"""Before a word the last tab stays behind with the others (` +`). It belongs to the word as a
    space does, and code is full of tabs: `\s` takes both."""
    return PATTERN.replace(r"|\s+(?!\S)", r"| +(?!\S)")


def spaces_and_tabs_stay_behind() -> str:
    r"""Spaces and tabs are cut right, other white space isn't (`[ \t]+`): there are no-break spaces
    (U+00A0), wide ones and more. `\s` takes all of them."""
    return PATTERN.replace(r"|\s+(?!\S)", r"|[ \t]+(?!\S)")


def without_nfc(text: str, encode_word: EncodeWord, special_tokens: dict[str, int]) -> list[int]:
    """The text isn't normalised. A letter and its accent as two characters look like one and get
    other ids: NFC makes them one."""
    return _encode(text, encode_word, special_tokens, lambda piece: piece)


def with_nfkc(text: str, encode_word: EncodeWord, special_tokens: dict[str, int]) -> list[int]:
    """This is NFKC, which also replaces signs by similar ones: "½" by "1⁄2", "²" by "2". Qwen2 uses
    NFC."""
    return _encode(text, encode_word, special_tokens, lambda p: unicodedata.normalize("NFKC", p))


def with_nfd(text: str, encode_word: EncodeWord, special_tokens: dict[str, int]) -> list[int]:
    """This is NFD, which takes letters and accents apart. NFC puts them together."""
    return _encode(text, encode_word, special_tokens, lambda p: unicodedata.normalize("NFD", p))


def nfc_before_control_tokens(
    text: str, encode_word: EncodeWord, special_tokens: dict[str, int]
) -> list[int]:
    """The whole text is normalised first. Control tokens are found in the text as it was written:
    a sign with an accent after it, ">" and U+0338, would become another sign, and the control token
    wouldn't be seen."""
    return _encode(normalise(text), encode_word, special_tokens, lambda piece: piece)


def not_cut_into_words(
    text: str, encode_word: EncodeWord, special_tokens: dict[str, int]
) -> list[int]:
    """The text goes to BPE in one piece, and merges reach from word to word. Cut it with the
    pattern first."""
    ids: list[int] = []
    for piece in pieces_of(text, special_tokens):
        known = special_tokens.get(piece)
        ids += encode_word(normalise(piece)) if known is None else [known]
    return ids


def starts_with_endoftext(
    text: str, encode_word: EncodeWord, special_tokens: dict[str, int]
) -> list[int]:
    """A control token is put at the beginning. Other models want one there; Qwen2 has no such token
    (bos_token is null), and nothing is added."""
    return [*special_tokens.values()][:1] + _encode(text, encode_word, special_tokens, normalise)


def stripped(text: str, encode_word: EncodeWord, special_tokens: dict[str, int]) -> list[int]:
    """White space at the ends is cut off. Every space counts: decoding has to give the text back."""
    return _encode(text.strip(), encode_word, special_tokens, normalise)


def first_ids_only(text: str, encode_word: EncodeWord, special_tokens: dict[str, int]) -> list[int]:
    """Of each word only the first id is kept. Most words have one, but long and rare ones have
    several: add all that `encode_word` gives."""
    return _encode(text, lambda word: encode_word(word)[:1], special_tokens, normalise)


def lists_in_the_list(
    text: str, encode_word: EncodeWord, special_tokens: dict[str, int]
) -> list[Any]:
    """`append` puts the list that `encode_word` gives into yours as one thing. The model wants a
    flat list of ids: `ids += ...` adds each."""
    return _encode(text, lambda word: [encode_word(word)], special_tokens, normalise)


def _encode(
    text: str,
    encode_word: Callable[[str], list[Any]],
    special_tokens: dict[str, int],
    prepare: Callable[[str], str],
) -> list[Any]:
    ids: list[Any] = []
    for piece in pieces_of(text, special_tokens):
        if piece in special_tokens:
            ids.append(special_tokens[piece])
        else:
            for word in split_words(prepare(piece)):
                ids += encode_word(word)
    return ids


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "word_pattern": (
        decimal_digits_only,
        other_numbers_as_signs,
        digits_in_threes,
        signs_one_by_one,
        signs_without_line_ends,
        line_feeds_after_signs,
        one_line_end_after_signs,
        line_feed_has_to_follow,
        tab_before_signs,
        any_white_space_before_signs,
        carriage_return_before_letters,
        line_end_before_letters,
        only_a_space_before_letters,
        letters_of_english,
        letters_and_marks,
        spaces_stay_behind_alone,
        every_space_together,
        spaces_and_tabs_stay_behind,
    ),
    "encode_text": (
        without_nfc,
        with_nfkc,
        with_nfd,
        nfc_before_control_tokens,
        not_cut_into_words,
        starts_with_endoftext,
        stripped,
        first_ids_only,
        lists_in_the_list,
    ),
}
"""The wrong versions of each task."""
