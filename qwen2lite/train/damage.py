r"""Damage on purpose: texts spoilt in known ways, so that filters can be measured.

What the web does to a corpus, with a label: a filter that drops a damaged text is right, one that
drops a sound text is wrong, and precision and recall can be counted. Real damage has more faces
than these, so what a filter reaches here is an upper bound: `boilerplate` and the rule against it
were written by the same hands.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator

from qwen2lite.train.world import CITIES, INSTRUMENTS, JOBS, PETS, YEARS

_PAGE_TOP = ("Home | About | Contact | Log in", "Skip to main content", "Share Tweet Pin Email")
_PAGE_END = (
    "We use cookies to improve your experience. Accept all cookies",
    "Sign up for our newsletter! Click here to subscribe",
    "Copyright © All rights reserved. Terms of use | Privacy policy",
    "Read more » You might also like:",
)
_TYPOGRAPHIC = str.maketrans({"'": "’", '"': "”", "-": "–"})


def near_copy(text: str, rng: random.Random, share: float = 0.02) -> str:
    """Changes one word in fifty, at least one, to another word of the text."""
    words, spaces = _apart(text)
    for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[place] = rng.choice(words)
    return _together(words, spaces)


def boilerplate(text: str, rng: random.Random) -> str:
    """Puts the text where a web page has it: between menus and notices."""
    return "\n".join([*rng.sample(_PAGE_TOP, 2), text, *rng.sample(_PAGE_END, 3)])


def mojibake(text: str, rng: random.Random) -> str:
    """UTF-8 read as Windows-1252: ’ becomes â€™, é becomes Ã©."""
    typographic = text.translate(_TYPOGRAPHIC).replace("e", "é", 3)
    return typographic.encode("utf-8").decode("cp1252", errors="replace")


def repetition(text: str, rng: random.Random) -> str:
    """Says a piece of the text again and again, as a broken crawler or a small model does."""
    words = text.split()
    start = rng.randrange(len(words))
    piece = " ".join(words[start : start + rng.randint(3, 12)])
    return " ".join([text, *[piece] * rng.randint(8, 20)])


def shuffled_words(text: str, rng: random.Random) -> str:
    """Keeps the words and loses their order: no rule that counts can see it."""
    words, spaces = _apart(text)
    rng.shuffle(words)
    return _together(words, spaces)


def wrong_fact(text: str, rng: random.Random) -> str:
    """Replaces a fact of the small world by another: only who knows the person can see it.

    A text without such a fact comes back as it is.
    """
    words = set(re.findall(r"\w+", text))
    for values in rng.sample((CITIES, JOBS, YEARS, INSTRUMENTS, PETS), 5):
        found = [value for value in values if value in words]
        if found:
            other = rng.choice([value for value in values if value not in words])
            return re.sub(rf"\b{found[0]}\b", other, text)
    return text


DAMAGES: dict[str, Callable[[str, random.Random], str]] = {
    damage.__name__: damage
    for damage in (near_copy, boilerplate, mojibake, repetition, shuffled_words, wrong_fact)
}


def damaged(texts: Iterable[str], share: float = 0.3, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Adds damaged versions of texts to a stream.

    Every text comes out as it went in, labelled "". In the given share of cases a damaged version
    of a text from before follows, labelled with the name of its damage; what its damage leaves
    unchanged is left out.

    Args:
        texts: sound ones. Those without words are passed over.
        share: chance of a damaged text after each.
        seed: of the draws.
    """
    rng = random.Random(seed)
    before: list[str] = []
    for text in filter(str.strip, texts):
        yield text, ""
        before.append(text)
        if rng.random() < share:
            original = rng.choice(before)
            name = rng.choice(list(DAMAGES))
            version = DAMAGES[name](original, rng)
            if version != original:
                yield version, name


def _apart(text: str) -> tuple[list[str], list[str]]:
    """Words, and the spaces and line ends around them, which a damage must not give it away by."""
    return text.split(), re.split(r"\S+", text)


def _together(words: list[str], spaces: list[str]) -> str:
    return spaces[0] + "".join(map(str.__add__, words, spaces[1:]))
