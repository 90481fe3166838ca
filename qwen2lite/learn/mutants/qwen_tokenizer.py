r"""Wrong ways to cut a text into words and to encode it, each a mistake that real projects made.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import unicodedata
from collections.abc import Callable, Collection
from typing import Any

import regex

from qwen2lite.text.pretokenize import PATTERN, normalise, split_words

EncodeWord = Callable[[str], list[int]]


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


def not_escaped(text: str, control: Collection[str]) -> list[str]:
    r"""The names went into a regular expression as they are, and there "|" means "or": every "<" and
    ">" became a control token. `re.escape` puts backslashes before such signs."""
    if not control:
        return [text]
    return [piece for piece in regex.split(f"({'|'.join(control)})", text) if piece]


def only_the_first(text: str, control: Collection[str]) -> list[str]:
    """Only the first occurrence of each control token is found: the text after it has to be
    searched too."""
    pieces = [text]
    for name in control:
        for place, piece in enumerate(pieces):
            if name in piece and piece != name:
                before, _, after = piece.partition(name)
                pieces[place : place + 1] = [before, name, after]
                break
    return [piece for piece in pieces if piece]


def control_tokens_lost(text: str, control: Collection[str]) -> list[str]:
    """The control tokens are gone: `re.split` gives what it split at only where the pattern is in
    brackets, a group."""
    if not control:
        return [text]
    return [p for p in regex.split("|".join(map(regex.escape, control)), text) if p]


def spaces_eaten(text: str, control: Collection[str]) -> list[str]:
    """White space around a control token is gone. Qwen2's control tokens take nothing with them
    (lstrip and rstrip are false), and the line end after <|im_end|> counts."""
    return [piece for p in _pieces(text, control) if (piece := p.strip())]


def empty_pieces(text: str, control: Collection[str]) -> list[str]:
    """Empty pieces stand between two control tokens or at an end. They have no ids: leave them
    out."""
    if not control:
        return [text]
    return regex.split(f"({'|'.join(map(regex.escape, control))})", text)


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
    for piece in _pieces(text, special_tokens):
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


def _pieces(text: str, control: Collection[str]) -> list[str]:
    if not control:
        return [text]
    pattern = f"({'|'.join(map(regex.escape, control))})"
    return [piece for piece in regex.split(pattern, text) if piece]


def _encode(
    text: str,
    encode_word: EncodeWord,
    special_tokens: dict[str, int],
    prepare: Callable[[str], str],
) -> list[int]:
    ids: list[int] = []
    for piece in _pieces(text, special_tokens):
        if piece in special_tokens:
            ids.append(special_tokens[piece])
        else:
            for word in split_words(prepare(piece)):
                ids += encode_word(word)
    return ids


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "word_pattern": (
        digits_in_threes,
        signs_one_by_one,
        signs_without_line_ends,
        only_a_space_before_letters,
        letters_of_english,
        letters_and_marks,
        every_space_together,
    ),
    "split_control": (
        not_escaped,
        only_the_first,
        control_tokens_lost,
        spaces_eaten,
        empty_pieces,
    ),
    "encode_text": (
        without_nfc,
        with_nfkc,
        with_nfd,
        nfc_before_control_tokens,
        not_cut_into_words,
        starts_with_endoftext,
        stripped,
    ),
}
"""The wrong versions of each task."""
