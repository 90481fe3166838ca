r"""Documents that can only be continued by looking back: the text repeats what chance has drawn.

Copying is how a small model learns to look back at all; the passkey then asks for it across a
distance. Their answers are in the document and not in the weights, so they test reading.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from qwen2lite.train.story import COLOURS, PLACES, THINGS, pick, shuffled, story_sentences

DIGITS = "0123456789"
WORDS = COLOURS + THINGS + tuple(place for place in PLACES if " " not in place)
COPIES = (
    "Say it twice: {list}. {list}.",
    "First {list}. Again {list}.",
    "Read this: {list}. Now write it: {list}.",
    "One said {list}. The other said {list}.",
)
OPENING = "A key is hidden in this text."
HIDE = " The secret key is {key}. Remember the key."
ASK = " What is the secret key? The secret key is"


@dataclass(frozen=True)
class Passkey:
    """A key hidden in a text, and the question for it: `prompt` ends where the answer begins."""

    prompt: str
    answer: str

    @property
    def text(self) -> str:
        """The whole document, as training reads it."""
        return f"{self.prompt}{self.answer}."


def copy_document(rng: random.Random) -> str:
    """Gives 3 to 12 words, or 3 to 10 digits, and the same again.

    Nothing comes twice in a list, so the word before always tells which one is next.
    """
    count = 3 + int(rng.random() * 10)
    as_words = rng.random() < 0.5
    drawn = shuffled(WORDS if as_words else DIGITS, rng)[:count]
    return pick(COPIES, rng).format(list=(" " if as_words else "").join(drawn))


def passkey(
    rng: random.Random,
    length: int,
    depth: float | None = None,
    size: Callable[[str], int] = len,
    digits: int = 5,
) -> Passkey:
    """Hides a key of a few digits among sentences of stories and asks for it at the end.

    No digit comes twice in a key: each tells the one after it, as in `copy_document`.

    Args:
        rng: draws the key and the filler.
        length: of the whole document; sentences are added as long as the next one fits.
        depth: where the key is, from 0 (first sentence) to 1 (last before the question); None
            draws it.
        size: what `length` counts. `len` counts characters;
            `lambda text: len(tokenizer.encode(text))` counts tokens.
        digits: of the key.

    Raises:
        ValueError: no room for the key and the question, or an argument out of range.

    Source: the test, arXiv 2305.16300; the wording is ours.
    """
    if depth is None:
        depth = rng.random()
    if not 0 <= depth <= 1 or not 1 <= digits <= len(DIGITS):
        raise ValueError(
            f"depth must be from 0 to 1 and digits from 1 to {len(DIGITS)}; "
            f"got depth={depth} and digits={digits}"
        )
    key = "".join(shuffled(DIGITS, rng)[:digits])
    hidden, answer = HIDE.format(key=key), f" {key}"
    room = length - size(f"{OPENING}{hidden}{ASK}{answer}.")
    if room < 0:
        raise ValueError(
            f"a passkey document of {digits} digits needs {length - room}, got length={length}"
        )
    sentences = filler(rng, room, size)
    sentences.insert(round(depth * len(sentences)), hidden)
    return Passkey(OPENING + "".join(sentences) + ASK, answer)


def passkey_document(rng: random.Random) -> str:
    """A passkey document of 200 to 800 characters, its key anywhere."""
    return passkey(rng, length=200 + int(rng.random() * 601)).text


def filler(rng: random.Random, room: int, size: Callable[[str], int]) -> list[str]:
    """Sentences of stories, each with the space before it, until the next one doesn't fit."""
    sentences: list[str] = []
    while True:
        for sentence in story_sentences(rng):
            room -= size(" " + sentence)
            if room < 0:
                return sentences
            sentences.append(" " + sentence)
