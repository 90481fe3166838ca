r"""Heuristic quality filter: small rules, each with a reason, for prose in any language.

A rule sees only form. Nonsense in good form passes, and unusual good text may not: so every rule is
measured on labelled damage before it may drop anything. The limits are about those of Gopher and
FineWeb, made milder where sound short texts of ours would fail.

Source: arXiv 2112.11446, table A1; arXiv 2406.17557, section 3. Qwen2 names no rules (arXiv
2407.10671, section 3.1).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import regex

from qwen2lite.train.corpus import Document
from qwen2lite.train.words import SPACELESS, words

_LETTER = regex.compile(r"[\p{L}\p{M}]")
_SPACELESS = regex.compile(rf"[{SPACELESS}]")
# What é, ’ and – become when UTF-8 is read as Windows-1252, and the sign for a broken byte.
_MOJIBAKE = regex.compile(r"[ÂÃ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œ]|â€|ï¿½|\ufffd")
_PAGE = regex.compile(
    r"(?i)\b(accept (all )?cookies|we use cookies|all rights reserved|privacy policy|"
    r"terms of (use|service)|click here|subscribe|newsletter|skip to (main )?content|log in|"
    r"sign (up|in)|read more|share this|lorem ipsum|enable javascript)\b"
)


def too_short(text: str) -> bool:
    """Under ten words there is nothing to learn a context from."""
    return len(words(text)) < 10


def too_long(text: str) -> bool:
    """Over 100,000 words it is a dump or a list, not one document."""
    return len(text) > 100_000 and len(words(text)) > 100_000


def odd_words(text: str) -> bool:
    """The mean word has 2.5 to 12 letters; else it is codes, links, or letters set apart.

    Scripts without spaces have no words to measure.
    """
    spaced = _SPACELESS.sub(" ", text).split()
    if len(spaced) < 10:
        return False
    return not 2.5 <= sum(map(len, spaced)) / len(spaced) <= 12


def few_letters(text: str) -> bool:
    """Under six letters among ten signs it is a table, a log or a drawing."""
    signs = "".join(text.split())
    return len(_LETTER.findall(signs)) < 0.6 * len(signs)


def repeated_lines(text: str) -> bool:
    """Over three lines in ten stood there before: a menu, or a page pasted together."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return len(lines) > 3 and len(lines) - len(set(lines)) > 0.3 * len(lines)


def repeated_phrases(text: str) -> bool:
    """Over three in ten runs of four words stood there before: a loop, or a list of keywords."""
    sequence = words(text)
    runs = list(zip(*(sequence[start:] for start in range(4)), strict=False))
    return len(runs) > 10 and len(runs) - len(set(runs)) > 0.3 * len(runs)


def one_word(text: str) -> bool:
    """One word makes up a third of the text."""
    counts = Counter(words(text))
    return counts.total() > 10 and max(counts.values()) > counts.total() / 3


def page_furniture(text: str) -> bool:
    """Two or more of the phrases that stand around a text on a web page, or one in a short text.

    In English only: each language needs its own.
    """
    return len(_PAGE.findall(text)) > min(1, len(text) // 500)


def broken_lines(text: str) -> bool:
    """Over three lines in ten end in an ellipsis: teasers, whose texts are elsewhere."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return sum(line.endswith(("…", "...")) for line in lines) > 0.3 * max(len(lines), 3)


def wrong_encoding(text: str) -> bool:
    """Bytes were read in the wrong encoding, as in "cafÃ©" or "itâ€™s"."""
    return len(_MOJIBAKE.findall(text)) > len(text) / 2000


Rule = Callable[[str], bool]
RULES: tuple[Rule, ...] = (
    too_short,
    too_long,
    odd_words,
    few_letters,
    repeated_lines,
    repeated_phrases,
    one_word,
    page_furniture,
    broken_lines,
    wrong_encoding,
)
"""For prose. For code leave out `few_letters` and `repeated_phrases`."""


def faults(text: str, rules: Iterable[Rule] = RULES) -> list[str]:
    """Names of the rules that a text breaks; its reason is the docstring of the rule."""
    return [rule.__name__ for rule in rules if rule(text)]


def without_faults(
    documents: Iterable[Document], rules: Iterable[Rule] = RULES
) -> Iterator[Document]:
    """Drops the documents that break a rule."""
    rules = tuple(rules)
    return (document for document in documents if not any(rule(document.text) for rule in rules))
