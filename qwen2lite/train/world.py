r"""The course's small world: 200 people, five facts about each, and documents that tell them.

Everything is drawn from a seed, so a corpus of any size needs no file and no network, and a fact
learnt from it can be asked for and checked. The facts are the same for every seed of `documents`;
only their wording and order differ.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qwen2lite.train.story import pick, shuffled, story
from qwen2lite.train.tasks import copy_document, passkey_document

FIRST_NAMES = (
    "Ada", "Ben", "Clara", "Dan", "Ella", "Finn", "Grace", "Hugo", "Iris", "Jack", "Kate", "Leo",
    "Mia", "Noah", "Olive", "Paul", "Rosa", "Sam", "Tess", "Victor",
)  # fmt: skip
LAST_NAMES = (
    "Ash", "Brook", "Cole", "Dale", "Field", "Grove", "Hill", "Knight", "Lake", "Marsh", "North",
    "Page", "Reed", "Shaw", "Stone", "Tanner", "Vale", "Ward", "West", "Young",
)  # fmt: skip
CITIES = (
    "Amberley", "Brightwater", "Coldharbour", "Dunmere", "Elmford", "Foxhill", "Goldcrest",
    "Hazelton", "Ironbridge", "Larkspur",
)  # fmt: skip
JOBS = (
    "baker", "doctor", "farmer", "gardener", "judge", "painter", "sailor", "tailor", "teacher",
    "writer",
)  # fmt: skip
YEARS = tuple(str(year) for year in range(1950, 1990))
INSTRUMENTS = (
    "banjo", "cello", "drum", "flute", "guitar", "harp", "horn", "piano", "trumpet", "violin",
)  # fmt: skip
PETS = (
    "cat", "dog", "duck", "goat", "hamster", "parrot", "pony", "rabbit", "snake", "turtle",
)  # fmt: skip

TEMPLATES = {
    "city": (
        "{name} lives in {city}.",
        "The home of {name} is in {city}.",
        "{name} has a house in {city}.",
        "If you look for {name}, go to {city}.",
        "{name} comes from the town of {city}.",
        "The town where {name} lives is {city}.",
    ),
    "job": (
        "{name} works as a {job}.",
        "By trade {name} is a {job}.",
        "{name} earns a living as a {job}.",
        "The job of {name} is that of a {job}.",
        "Every day {name} goes to work as a {job}.",
        "{name} became a {job}.",
    ),
    "year": (
        "{name} was born in {year}.",
        "The birth year of {name} is {year}.",
        "{name} came into the world in {year}.",
        "The story of {name} began in {year}.",
        "The parents of {name} had a baby in {year}.",
        "The year in which {name} was born is {year}.",
    ),
    "instrument": (
        "{name} plays the {instrument}.",
        "In the band {name} plays the {instrument}.",
        "At night {name} likes to play the {instrument}.",
        "The instrument of {name} is the {instrument}.",
        "{name} is good at playing the {instrument}.",
        "As a child {name} learned the {instrument}.",
    ),
    "pet": (
        "{name} has a pet {pet}.",
        "The pet of {name} is a {pet}.",
        "{name} looks after a {pet}.",
        "At home {name} keeps a {pet}.",
        "The animal that {name} loves most is a {pet}.",
        "{name} shares the house with a {pet}.",
    ),
}
"""Ways to tell each fact. A fact told in one way only is stored, but can't be asked for otherwise.

Each names the whole person, for a window of the loader may begin in the middle of a document, and
gives the value last, so that the sentence without its end is a question.

Source of the effect: arXiv 2309.14316.
"""
HELD_OUT = {
    "city": "{name} has a home in {city}.",
    "job": "{name} has a job as a {job}.",
    "year": "The life of {name} began in {year}.",
    "instrument": "The instrument that {name} plays is the {instrument}.",
    "pet": "The pet that {name} keeps is a {pet}.",
}
"""One more way to tell each fact, in words that documents use elsewhere, but no document uses it so:
is the fact known, or just a sentence?"""
ATTRIBUTES = tuple(TEMPLATES)
SHARES = {"biography": 0.4, "story": 0.3, "copy": 0.15, "passkey": 0.15}


@dataclass(frozen=True)
class Person:
    """A person and five facts, all of them text. Only the whole name says who it is."""

    name: str
    city: str
    job: str
    year: str
    instrument: str
    pet: str


def people(seed: int = 0, count: int = 200) -> list[Person]:
    """Draws the people of a world. No two have the same name; many share a first or last name.

    Raises:
        ValueError: more people than names.
    """
    names = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    if not 1 <= count <= len(names):
        raise ValueError(f"there are names for 1 to {len(names)} people, got count={count}")
    rng = random.Random(seed)
    values = (CITIES, JOBS, YEARS, INSTRUMENTS, PETS)
    return [
        Person(name, *(pick(choice, rng) for choice in values))
        for name in shuffled(names, rng)[:count]
    ]


def biography(person: Person, rng: random.Random) -> str:
    """Tells the five facts of a person, in any order, each in one of its wordings."""
    facts = vars(person)
    return " ".join(
        pick(TEMPLATES[attribute], rng).format_map(facts) for attribute in shuffled(ATTRIBUTES, rng)
    )


def cloze(person: Person, attribute: str, held_out: bool = False) -> tuple[str, str]:
    """Asks for a fact: the beginning of a sentence, and how it must go on.

    Args:
        person: of whom.
        attribute: one of `ATTRIBUTES`.
        held_out: ask in the wording that no document uses; else in the first of those they use.

    Returns:
        The prompt, and the answer with the space before it: " Elmford".

    Raises:
        ValueError: no such attribute.
    """
    if attribute not in TEMPLATES:
        raise ValueError(f"attribute must be one of {', '.join(ATTRIBUTES)}; got {attribute!r}")
    template = HELD_OUT[attribute] if held_out else TEMPLATES[attribute][0]
    before, _, _ = template.partition(f" {{{attribute}}}")
    return before.format_map(vars(person)), " " + getattr(person, attribute)


def documents(
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    persons: Sequence[Person] | None = None,
) -> Iterator[str]:
    """Gives documents without end, in the wanted mixture.

    The next document is always of the kind that is furthest behind its share, so the mixture is
    right after any number of them, and in characters, not in documents.

    Args:
        seed: of the wording; another seed gives other documents of the same world.
        shares: how much of the text is "biography", "story", "copy" and "passkey"; they needn't
            sum to 1.
        persons: whose biographies; None is `people()`.

    Raises:
        ValueError: an unknown kind, a negative share, or nobody and nothing to tell of.
    """
    cast = people() if persons is None else persons
    if not cast:
        raise ValueError("persons is empty: give at least one, or None for all people()")
    makers: dict[str, Callable[[random.Random], str]] = {
        "biography": lambda rng: biography(pick(cast, rng), rng),
        "story": story,
        "copy": copy_document,
        "passkey": passkey_document,
    }
    _check_shares(shares, makers.keys())
    return _mixture(random.Random(seed), {kind: makers[kind] for kind in shares}, shares)


def _check_shares(shares: Mapping[str, float], known: Iterable[str]) -> None:
    if unknown := shares.keys() - set(known):
        raise ValueError(f"no documents of kind {sorted(unknown)}; there are {', '.join(known)}")
    if min(shares.values(), default=0) < 0 or not any(shares.values()):
        raise ValueError(f"shares must be 0 or above, and one of them above 0; got {dict(shares)}")


def _mixture(
    rng: random.Random,
    makers: Mapping[str, Callable[[random.Random], str]],
    shares: Mapping[str, float],
) -> Iterator[str]:
    written = {kind: 0 for kind in makers if shares[kind]}
    while True:
        behind = min(written, key=lambda kind: written[kind] / shares[kind])
        text = makers[behind](rng)
        written[behind] += len(text)
        yield text
