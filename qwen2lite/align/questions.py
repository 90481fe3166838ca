"""The small world in conversations: questions about its people, and answers that can be checked."""

import random
from collections.abc import Callable, Iterable

from qwen2lite.text.chat import Message
from qwen2lite.train.story import pick
from qwen2lite.train.world import ATTRIBUTES, TEMPLATES, Person

Answer = Callable[[Person, str], str]
"""Says one fact of a person."""

QUESTIONS = {
    "city": (
        "Where does {name} live?",
        "In which town is the home of {name}?",
        "Which town does {name} come from?",
    ),
    "job": (
        "What is the job of {name}?",
        "How does {name} earn a living?",
        "What does {name} work as?",
    ),
    "year": (
        "When was {name} born?",
        "In which year was {name} born?",
        "What is the birth year of {name}?",
    ),
    "instrument": (
        "Which instrument does {name} play?",
        "What does {name} play in the band?",
        "What is the instrument of {name}?",
    ),
    "pet": (
        "Which pet does {name} have?",
        "What animal does {name} look after?",
        "What is the pet of {name}?",
    ),
}
"""Ways to ask for each fact. No document of the world asks for a person's facts."""


def question(person: Person, attribute: str, rng: random.Random) -> list[Message]:
    """Asks for a fact in one of its wordings, under an empty system prompt.

    Raises:
        ValueError: no such attribute.
    """
    if attribute not in QUESTIONS:
        raise ValueError(f"attribute must be one of {', '.join(ATTRIBUTES)}; got {attribute!r}")
    wording = pick(QUESTIONS[attribute], rng).format(name=person.name)
    return [{"role": "system", "content": ""}, {"role": "user", "content": wording}]


def sentence(person: Person, attribute: str) -> str:
    """The fact as documents tell it, the name first: "Ada Ash lives in Elmford."."""
    return TEMPLATES[attribute][0].format_map(vars(person))


def value(person: Person, attribute: str) -> str:
    """The fact by itself, as a sentence ends: "Elmford."."""
    return f"{getattr(person, attribute)}."


def conversations(
    persons: Iterable[Person], rng: random.Random, answer: Answer = sentence
) -> list[list[Message]]:
    """Every fact of some people, asked for once and answered, in the order of the people.

    Args:
        persons: about whom.
        rng: draws the wording of each question.
        answer: what the assistant says.
    """
    return [
        [*question(person, fact, rng), {"role": "assistant", "content": answer(person, fact)}]
        for person in persons
        for fact in ATTRIBUTES
    ]
