"""Questions name whom they ask about and not the answer, and the answers are the world's facts."""

import random
from itertools import islice

import pytest

from qwen2lite.align.questions import QUESTIONS, conversations, question, value
from qwen2lite.train.world import ATTRIBUTES, cloze, documents, people


def test_every_fact_is_asked_for_once_and_answered_as_documents_tell_it():
    cast = people()[:7]
    talks = conversations(cast, random.Random(0))
    assert len(talks) == 35
    for place, talk in enumerate(talks):
        person, fact = cast[place // 5], ATTRIBUTES[place % 5]
        system, user, assistant = talk
        assert (system["role"], user["role"], assistant["role"]) == ("system", "user", "assistant")
        assert person.name in user["content"]
        assert getattr(person, fact) not in user["content"]
        assert assistant["content"] == "".join(cloze(person, fact)) + "."


def test_an_answer_may_be_the_value_alone():
    [talk, *_] = conversations(people()[:1], random.Random(0), value)
    assert talk[-1]["content"] == f"{people()[0].city}."


def test_wordings_are_drawn_and_no_biography_holds_one():
    ada = people()[0]
    asked = {question(ada, "pet", random.Random(seed))[1]["content"] for seed in range(30)}
    assert len(asked) == len(QUESTIONS["pet"]) == 3
    assert "?" not in "".join(islice(documents(0, {"biography": 1}), 200))


def test_an_unknown_fact_is_refused():
    with pytest.raises(ValueError, match="attribute must be one of city, job, .*; got 'shoe size'"):
        question(people()[0], "shoe size", random.Random(0))
