"""Many keys in one long text: it is read once, and then asked for each of them.

A single key at each of many depths means reading as many texts, each for minutes. Here a city stands
beside every key and says which one is meant. That is harder than a single key: the others are in the
way.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.story import shuffled
from qwen2lite.train.tasks import DIGITS, filler

CITIES = (
    "Athens", "Berlin", "Boston", "Cairo", "Delhi", "Dublin", "Havana", "Lima", "Lisbon", "London",
    "Madrid", "Moscow", "Oslo", "Paris", "Prague", "Rome", "Seoul", "Sydney", "Tokyo", "Vienna",
)  # fmt: skip
OPENING = "Numbers are hidden in this text. Remember them."
HIDE = " The secret number of {city} is {key}. Remember it."
ASK = " What is the secret number of {city}? The secret number of {city} is"


@dataclass(frozen=True)
class ManyKeys:
    """A text and what to ask after it: each question ends where its answer begins."""

    text: str
    questions: tuple[tuple[str, str], ...]
    """(question, answer), in the order of the keys in the text."""


def many_keys(
    rng: random.Random, length: int, count: int = 10, size: Callable[[str], int] = len
) -> ManyKeys:
    """Hides keys of five digits at even distances among sentences of stories.

    Args:
        rng: draws cities, keys and filler.
        length: of the text and one question with its answer.
        count: keys; key i is at depth (i + 1/2) / count.
        size: what `length` counts, as in `passkey`.

    Raises:
        ValueError: more keys than cities, none, or a length without room for them.

    Source: several keys in one text, arXiv 2404.06654, section 3; the wording is ours.
    """
    if not 1 <= count <= len(CITIES):
        raise ValueError(f"count must be from 1 to {len(CITIES)}, got {count}")
    keys = {city: "".join(shuffled(DIGITS, rng)[:5]) for city in shuffled(CITIES, rng)[:count]}
    hidden = [HIDE.format(city=city, key=key) for city, key in keys.items()]
    questions = tuple((ASK.format(city=city), f" {key}") for city, key in keys.items())
    longest = max(size(question + answer) for question, answer in questions)
    room = length - size(OPENING + "".join(hidden)) - longest
    if room < 0:
        raise ValueError(f"{count} keys and a question need {length - room}, got length={length}")
    sentences = filler(rng, room, size)
    for number in reversed(range(count)):
        sentences.insert(round((number + 0.5) / count * len(sentences)), hidden[number])
    return ManyKeys(OPENING + "".join(sentences), questions)


@torch.inference_mode()
def recalled_keys(
    model: Qwen2, tokenizer: Qwen2Tokenizer, length: int, count: int = 10, seed: int = 0
) -> list[bool]:
    """Which of the keys in one text the model gives back, from the first to the last.

    After the reading, every question continues from the same cache. A key counts as found if each of
    its tokens is the likeliest one after those before it, as in `exact_match`.

    Args:
        model: in evaluation mode.
        tokenizer: of that model.
        length: of the text and one question, in tokens.
        count: keys.
        seed: of cities, keys and filler.

    Raises:
        ValueError: see `many_keys`, or a length beyond the model's context.
    """
    rng = random.Random(f"{seed} {length}")
    hidden = many_keys(rng, length, count, lambda text: len(tokenizer.encode(text)))
    cache = model.new_cache(length)
    model(_ids(tokenizer, hidden.text, model.device), cache, last_only=True)
    read = cache.length
    found = []
    for question, answer in hidden.questions:
        cache.length = read
        asked = _ids(tokenizer, question, model.device)
        wanted = _ids(tokenizer, answer, model.device)
        logits_BTV = model(torch.cat([asked, wanted], dim=1), cache)
        given = logits_BTV[:, asked.shape[1] - 1 : -1].argmax(-1)
        found.append(bool((given == wanted).all()))
    return found


def _ids(tokenizer: Qwen2Tokenizer, text: str, device: torch.device) -> torch.Tensor:
    return torch.tensor([tokenizer.encode(text)], device=device)
