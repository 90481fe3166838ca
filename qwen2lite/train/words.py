r"""Words as the filters see them: lower case, one spelling, no punctuation.

Not the tokenizer's pieces: two copies of a text that differ in a comma, a capital or a line break
should look alike to a filter, and to the model they must not.
"""

import unicodedata

import regex

SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts that put no space between words: each of their characters counts as a word."""

_WORD = regex.compile(
    rf"(?V1)[{SPACELESS}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{SPACELESS}]]+",
)
_ASCII_SIGNS = {code: " " for code in range(128) if not chr(code).isalnum()}


def normalise(text: str) -> str:
    """One spelling (NFKC), one case, one space between words; punctuation stays.

    NFKC goes further than the tokenizer's NFC: ﬁ becomes fi, ２ becomes 2, ﷺ a whole phrase.
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a text, normalised. "Don't stop: ２ of 中国!" is don, t, stop, 2, of, 中, 国."""
    if text.isascii():
        return text.lower().translate(_ASCII_SIGNS).split()  # the same, several times as fast
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
