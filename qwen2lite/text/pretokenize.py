r"""Before BPE: one spelling for each character, then cuts that no merge may cross."""

import regex
from tokenizers import normalizers

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # English endings, in either case
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # letters, with one sign or space before them
    r"|\p{N}"  # one digit, always alone
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # signs, with the line ends after them
    r"|\s*[\r\n]+"  # line ends
    r"|\s+(?!\S)"  # spaces, but the last one before a word stays with the word
    r"|\s+"
)
r"""Qwen2's pattern. It differs from GPT-4's in one place: `\p{N}`, not `\p{N}{1,3}`.

Source: the published tokenizer.json; digits: arXiv 2309.16609, section 2.2.
"""

_WORDS = regex.compile(PATTERN)
# Not unicodedata: its Unicode version is Python's, and a few characters would get other ids.
_NFC = normalizers.NFC()


def normalise(text: str) -> str:
    """NFC: a letter and its accent become one character where Unicode joins them.

    Raises:
        ValueError: the text holds half of a surrogate pair, which no UTF-8 can express.
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text is the lone surrogate U+{ord(text[error.start]):04X}"
            ", which is no character; read the text again with the right encoding"
        ) from None
    # No character composes with a line end, and the lines of most texts need no work.
    lines = text.split("\n")
    return "\n".join(line if line.isascii() else _NFC.normalize_str(line) for line in lines)


def split_words(text: str) -> list[str]:
    """Cuts a text into words. Joined together they are the text again.

    "don't stop" gives "don", "'t", " stop": the space belongs to the word after it.
    """
    return _WORDS.findall(text)
