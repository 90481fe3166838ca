"""Each worse answer has its one fault and no other, and the faulty part is drawn evenly."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite.align.pairs import FAULTS, Pair, pairs
from qwen2lite.align.questions import question, sentence
from qwen2lite.train.world import ATTRIBUTES, people

CAST = people()
PATTERNS = {
    "city": r"(\w+ \w+) lives in (\w+)\.",
    "job": r"(\w+ \w+) works as a (\w+)\.",
    "year": r"(\w+ \w+) was born in (\d{4})\.",
    "instrument": r"(\w+ \w+) plays the (\w+)\.",
    "pet": r"(\w+ \w+) has a pet (\w+)\.",
}
ASKED = st.tuples(st.sampled_from(CAST), st.sampled_from(ATTRIBUTES), st.integers(0, 2**32))


def told(text):
    """What a sentence says: of whom, which attribute, which value."""
    [found] = [(fact, m) for fact, p in PATTERNS.items() if (m := re.fullmatch(p, text))]
    return found[1][1], found[0], found[1][2]


@given(ASKED)
def test_another_value_is_false_and_nothing_else_is_wrong(asked):
    person, fact, seed = asked
    name, attribute, value = told(FAULTS["value"](person, fact, random.Random(seed)))
    assert (name, attribute) == (person.name, fact)
    assert value != getattr(person, fact)
    assert value in {getattr(other, fact) for other in CAST}


@given(ASKED)
def test_another_name_is_not_who_was_asked_for(asked):
    person, fact, seed = asked
    name, attribute, value = told(FAULTS["name"](person, fact, random.Random(seed)))
    assert name != person.name
    assert (attribute, value) == (fact, getattr(person, fact))


def test_every_other_name_can_be_drawn_and_never_the_own():
    class At:
        """A generator that always draws from one place of its range."""

        def __init__(self, place):
            self.random = lambda: place

    drawn = {told(FAULTS["name"](CAST[0], "pet", At((n + 0.5) / 399)))[0] for n in range(399)}
    assert len(drawn) == 399
    assert CAST[0].name not in drawn


@given(ASKED)
def test_another_attribute_is_true_and_was_not_asked_for(asked):
    person, fact, seed = asked
    name, attribute, value = told(FAULTS["attribute"](person, fact, random.Random(seed)))
    assert name == person.name
    assert attribute != fact
    assert value == getattr(person, attribute)


@given(ASKED)
def test_said_twice_is_the_right_answer_two_times(asked):
    person, fact, seed = asked
    first, second = FAULTS["twice"](person, fact, random.Random(seed)).split(". ")
    assert told(first + ".") == told(second) == (person.name, fact, getattr(person, fact))


def test_wrong_values_are_as_common_as_each_other():
    """Else a model could learn which values are mostly wrong, and know no fact."""
    ada = CAST[0]
    rng = random.Random(0)
    drawn = Counter(told(FAULTS["value"](ada, "pet", rng))[2] for _ in range(9000))
    assert len(drawn) == 9
    assert all(abs(count - 1000) < 150 for count in drawn.values())  # 5 standard deviations


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fact_makes_one_pair_in_the_order_of_the_people(fault):
    made = pairs(CAST[:3], random.Random(5), FAULTS[fault])
    assert [pair.chosen for pair in made] == [
        sentence(person, fact) for person in CAST[:3] for fact in ATTRIBUTES
    ]
    assert all(CAST[place // 5].name in p.prompt[-1]["content"] for place, p in enumerate(made))
    assert made == pairs(CAST[:3], random.Random(5), FAULTS[fault])
    if fault != "twice":
        assert [p.rejected for p in made] != [
            p.rejected for p in pairs(CAST[:3], random.Random(6), FAULTS[fault])
        ]


def test_the_conversations_of_a_pair_differ_in_the_answer_alone():
    prompt = question(CAST[0], "city", random.Random(0))
    better, worse = Pair(prompt, "Yes.", "No.").conversations
    assert better == [*prompt, {"role": "assistant", "content": "Yes."}]
    assert worse == [*prompt, {"role": "assistant", "content": "No."}]
    assert len(prompt) == 2
