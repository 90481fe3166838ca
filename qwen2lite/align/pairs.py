"""Two answers to one question, of which one is better: the small world's people, asked for again.

Every worse answer has one fault, is as fluent as the better one, and can be told by whoever knows
the facts. So what a model has learnt from such pairs can be measured fault by fault.
"""

import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qwen2lite.align.questions import question, sentence
from qwen2lite.text.chat import Message
from qwen2lite.train.story import pick
from qwen2lite.train.world import (
    ATTRIBUTES,
    CITIES,
    FIRST_NAMES,
    INSTRUMENTS,
    JOBS,
    LAST_NAMES,
    PETS,
    YEARS,
    Person,
)

VALUES = dict(zip(ATTRIBUTES, (CITIES, JOBS, YEARS, INSTRUMENTS, PETS), strict=True))
"""What can be said of each attribute."""
Fault = Callable[[Person, str, random.Random], str]
"""Answers a question about a person's attribute badly."""


@dataclass(frozen=True)
class Pair:
    """A conversation that ends with a question, an answer, and one that is worse."""

    prompt: Sequence[Message]
    chosen: str
    rejected: str

    @property
    def conversations(self) -> tuple[list[Message], list[Message]]:
        """The whole conversation with either answer, the better one first."""
        better, worse = (
            [*self.prompt, {"role": "assistant", "content": answer}]
            for answer in (self.chosen, self.rejected)
        )
        return better, worse


def another_value(person: Person, attribute: str, rng: random.Random) -> str:
    """Says something false: "Ada Ash lives in Foxhill.", who lives in Elmford. Only whoever knows
    the fact can tell: each value stands in as many right answers as wrong ones."""
    others = [value for value in VALUES[attribute] if value != getattr(person, attribute)]
    return sentence(dataclasses.replace(person, **{attribute: pick(others, rng)}), attribute)


def another_name(person: Person, attribute: str, rng: random.Random) -> str:
    """Tells the fact of somebody who wasn't asked for: "Ben Hill lives in Elmford."."""
    names = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    name = pick([name for name in names if name != person.name], rng)
    return sentence(dataclasses.replace(person, name=name), attribute)


def another_attribute(person: Person, attribute: str, rng: random.Random) -> str:
    """Says something true that wasn't asked: "Ada Ash has a pet goat."."""
    return sentence(person, pick([fact for fact in ATTRIBUTES if fact != attribute], rng))


def said_twice(person: Person, attribute: str, rng: random.Random) -> str:
    """Is right and doesn't stop: "Ada Ash lives in Elmford. Ada Ash lives in Elmford."."""
    return f"{sentence(person, attribute)} {sentence(person, attribute)}"


FAULTS: dict[str, Fault] = {
    "value": another_value,
    "name": another_name,
    "attribute": another_attribute,
    "twice": said_twice,
}


def pairs(
    persons: Iterable[Person], rng: random.Random, fault: Fault = another_value
) -> list[Pair]:
    """Every fact of some people, asked for once and answered well and badly, in the order of the
    people.

    Args:
        persons: about whom.
        rng: draws the wording of each question, and what is wrong.
        fault: gives the worse answer; `FAULTS` has some.
    """
    return [
        Pair(question(person, fact, rng), sentence(person, fact), fault(person, fact, rng))
        for person in persons
        for fact in ATTRIBUTES
    ]
