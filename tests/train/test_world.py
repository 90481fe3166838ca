"""The small world: the same everywhere, every fact told in many ways, and tasks that can be solved."""

import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite import Qwen2Tokenizer
from qwen2lite.train import story as tale
from qwen2lite.train import tasks, world
from qwen2lite.train.story import story
from qwen2lite.train.tasks import copy_document, passkey, passkey_document
from qwen2lite.train.world import ATTRIBUTES, HELD_OUT, TEMPLATES, biography, cloze, people

SEEDS = st.integers(0, 2**32)
TINY = Path(__file__).parents[2] / "data" / "qwen2-tiny"
PINNED = "3ea1b92d0d947d92cf06d0cb39ce6d1df8571c726c84e41c915ed9999580ac64"
DIGEST = (
    "import hashlib, itertools; from qwen2lite.train.world import documents;"
    "print(hashlib.sha256('\\n'.join(itertools.islice(documents(), 500)).encode()).hexdigest())"
)


class OnlyRandom:
    """The one method whose numbers Python promises to keep from version to version."""

    def __init__(self, seed):
        self.random = random.Random(seed).random


def some_documents(count, **arguments):
    return list(itertools.islice(world.documents(**arguments), count))


def told_facts(text):
    """Reads a biography back: every (name, attribute, value) that a template tells."""
    facts = []
    for attribute, templates in TEMPLATES.items():
        for template in templates:
            pattern = re.escape(template).replace(r"\{name\}", r"([A-Z]\w+ [A-Z]\w+)")
            pattern = r"(?:^|(?<=\. ))" + pattern.replace(rf"\{{{attribute}\}}", r"(\w+)")
            facts += [(name, attribute, value) for name, value in re.findall(pattern, text)]
    return facts


def test_the_documents_are_the_same_everywhere():
    """Changed on purpose? Then everything trained on this world has to be trained again."""
    assert hashlib.sha256("\n".join(some_documents(500)).encode()).hexdigest() == PINNED


def test_the_order_of_python_s_hashes_plays_no_part():
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, capture_output=True, check=True, text=True
    )
    assert run.stdout.strip() == PINNED


@pytest.mark.parametrize("make", [story, copy_document, passkey_document])
def test_only_random_is_drawn_from(make):
    assert make(OnlyRandom(4)) == make(random.Random(4))
    assert biography(people()[0], OnlyRandom(4)) == biography(people()[0], random.Random(4))


def test_another_seed_gives_other_words_and_the_same_facts():
    first, second = (some_documents(400, seed=seed, shares={"biography": 1}) for seed in (1, 2))
    assert not set(first) & set(second)
    facts = {fact for text in first + second for fact in told_facts(text)}
    assert len(facts) == len({(name, attribute) for name, attribute, _ in facts})


def test_people_have_names_of_their_own():
    everyone = people()
    assert len({person.name for person in everyone}) == len(everyone) == 200
    assert people() == everyone != people(seed=1)
    # A first or last name alone says nothing.
    firsts = Counter(person.name.split()[0] for person in everyone)
    assert max(firsts.values()) > 1
    for attribute, kinds in zip(ATTRIBUTES, (10, 10, 40, 10, 10), strict=True):
        values = Counter(getattr(person, attribute) for person in everyone)
        assert len(values) == kinds
        assert max(values.values()) <= 200 / kinds * 2.5


@pytest.mark.parametrize("count", [0, 401])
def test_too_many_people_are_refused(count):
    with pytest.raises(ValueError, match=f"1 to 400 people, got count={count}"):
        people(count=count)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_fact_has_many_wordings_that_end_with_the_value(attribute):
    wordings = TEMPLATES[attribute]
    assert len(set(wordings)) == len(wordings) >= 4
    assert HELD_OUT[attribute] not in wordings
    for template in (*wordings, HELD_OUT[attribute]):
        assert template.index("{name}") < template.index(f" {{{attribute}}}.")
        assert template.endswith(f"{{{attribute}}}.")


def test_a_biography_tells_every_fact_once_in_every_order_and_wording():
    person = people()[7]
    orders, wordings = set(), Counter()
    for seed in range(1500):
        text = biography(person, random.Random(seed))
        facts = told_facts(text)
        assert sorted(facts) == sorted((person.name, a, getattr(person, a)) for a in ATTRIBUTES)
        orders.add(tuple(sorted(ATTRIBUTES, key=lambda a: text.index(getattr(person, a)))))
        wordings.update(
            template
            for templates in TEMPLATES.values()
            for template in templates
            if template.format(**vars(person)) in re.split(r"(?<=\.) ", text)
        )
    assert len(orders) == 120
    assert len(wordings) == 30
    # 1,500 biographies, six wordings: 250 each, and five standard deviations are 72.
    assert all(abs(count - 250) < 72 for count in wordings.values())


def test_cloze_asks_in_a_seen_and_in_a_held_out_wording():
    person = people()[0]
    text = " ".join(biography(person, random.Random(seed)) for seed in range(100))
    for attribute in ATTRIBUTES:
        prompt, answer = cloze(person, attribute)
        assert answer == " " + getattr(person, attribute)
        assert f"{prompt}{answer}." in text
        held_out, same = cloze(person, attribute, held_out=True)
        assert same == answer
        assert person.name in held_out
        assert held_out not in text


def test_no_document_uses_a_held_out_wording():
    text = "\n".join(some_documents(4000))
    for template in HELD_OUT.values():
        pattern = re.escape(template).replace(r"\{name\}", r"\w+ \w+")
        assert not re.search(re.sub(r"\\\{\w+\\\}", r"\\w+", pattern), text)
    assert re.search("The home of \\w+ \\w+ is in", text)


def test_cloze_names_the_attributes_there_are():
    with pytest.raises(ValueError, match="one of city, job, year, instrument, pet; got 'shoe'"):
        cloze(people()[0], "shoe")


@given(SEEDS)
def test_a_story_keeps_to_one_thing_colour_and_place(seed):
    text = story(random.Random(seed))
    assert not set("{}") & set(text)
    words = re.findall(r"\w+", text)
    # A friend may come with a lamp.
    assert len(set(tale.THINGS) & set(words) - {"lamp"}) <= 1
    assert len(set(tale.COLOURS) & set(words)) == 1
    assert sum(hidden in text for hidden in tale.HIDDEN) == 1
    assert sum(hero in text for hero in tale.HEROES) == 2
    assert not set(world.FIRST_NAMES) & set(text.split())


@given(SEEDS)
def test_a_copy_document_says_the_same_twice(seed):
    text = copy_document(random.Random(seed))
    outer = [re.escape(form).replace(r"\{list\}", "(.*)") for form in tasks.COPIES]
    first, again = next(found for form in outer if (found := re.fullmatch(form, text))).groups()
    assert first == again
    items = list(first) if first.isdigit() else first.split()
    assert 3 <= len(items) == len(set(items)) <= 12


@given(SEEDS, st.integers(200, 2000), st.none() | st.floats(0, 1), st.integers(1, 10))
def test_a_passkey_is_hidden_once_and_fits(seed, length, depth, digits):
    task = passkey(random.Random(seed), length, depth, digits=digits)
    assert task.text == task.prompt + task.answer + "."
    assert re.fullmatch(r" \d+", task.answer)
    assert len(task.answer) == len(set(task.answer)) == digits + 1
    assert re.findall(r"\d+", task.prompt) == [task.answer[1:]]
    # The next sentence of a story would not have fitted, and none is longer than 110 characters.
    assert length - 111 <= len(task.text) <= length


def test_the_key_lies_at_the_depth_asked_for():
    places = []
    for depth in (0, 0.25, 0.5, 0.75, 1):
        prompt = passkey(random.Random(1), 5000, depth).prompt
        places.append(prompt.index(" The secret key is") / prompt.index(" What is the secret key?"))
    assert places[0] < 0.01
    assert places == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.03)
    assert passkey(random.Random(1), 500, 1).prompt.count("Remember the key. What is") == 1


def test_length_can_count_tokens():
    tokenizer = Qwen2Tokenizer.from_pretrained(TINY)

    def size(text):
        return len(tokenizer.encode(text))

    for seed in range(5):
        task = passkey(random.Random(seed), 400, size=size)
        assert 400 - 80 < size(task.text) <= 400


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(ValueError, match=r"5 digits needs (\d+), got length=50") as refused:
        passkey(random.Random(0), 50)
    needed = int(re.search(r"needs (\d+)", str(refused.value))[1])
    assert len(passkey(random.Random(0), needed).text) == needed
    with pytest.raises(ValueError, match="needs"):
        passkey(random.Random(0), needed - 1)


@pytest.mark.parametrize("wrong", [{"depth": 1.1}, {"depth": -0.1}, {"digits": 0}, {"digits": 11}])
def test_passkey_arguments_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        passkey(random.Random(0), 500, **({"depth": 0.5} | wrong))


def test_the_mixture_is_in_characters():
    shares = {"biography": 5, "story": 3, "copy": 2, "passkey": 0}
    texts = some_documents(1000, shares=shares)
    characters = Counter()
    for text in texts:
        if re.fullmatch(
            "|".join(re.escape(c).replace(r"\{list\}", ".*") for c in tasks.COPIES), text
        ):
            characters["copy"] += len(text)
        else:
            characters["biography" if told_facts(text) else "story"] += len(text)
    assert not any(text.startswith(tasks.OPENING) for text in texts)
    total = sum(characters.values())
    longest = max(map(len, texts))
    for kind, part in characters.items():
        assert abs(part - total * shares[kind] / 10) <= longest


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"shares": {"poem": 1}}, "no documents of kind .'poem'."),
        ({"shares": {"story": -1, "copy": 1}}, "0 or above"),
        ({"shares": {"story": 0}}, "one of them above 0"),
        ({"shares": {}}, "one of them above 0"),
        ({"persons": []}, "persons is empty"),
    ],
)
def test_a_mixture_of_nothing_is_refused_at_once(wrong, words):
    with pytest.raises(ValueError, match=words):
        world.documents(**wrong)
