"""Damage does what its label says, and leaves the rest of the text alone."""

import random
from collections import Counter
from itertools import islice

import pytest

from qwen2lite.train.damage import (
    DAMAGES,
    boilerplate,
    damaged,
    mojibake,
    near_copy,
    repetition,
    shuffled_words,
    wrong_fact,
)
from qwen2lite.train.world import CITIES, biography, people

TEXT = " It's the  first line,\nand \tthe second - one of three;\n\nthe third ends here. " * 3


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_a_near_copy_changes_that_many_words_at_most(share):
    before, after = TEXT.split(), near_copy(TEXT, random.Random(0), share).split()
    assert len(before) == len(after)
    changed = sum(one != other for one, other in zip(before, after, strict=True))
    assert 1 <= changed <= max(1, round(share * len(before)))


@pytest.mark.parametrize("damage", [near_copy, shuffled_words])
def test_spaces_stay_where_they_were(damage):
    spoilt = damage(TEXT, random.Random(0))
    # The same spaces in the same order; only the words between them have other lengths.
    kinds = [[sign for sign in text if sign.isspace()] for text in (TEXT, spoilt)]
    assert kinds[0] == kinds[1]


def test_shuffled_words_are_the_same_words():
    spoilt = shuffled_words(TEXT, random.Random(0))
    assert spoilt.split() != TEXT.split()
    assert Counter(spoilt.split()) == Counter(TEXT.split())


def test_mojibake_can_be_undone():
    spoilt = mojibake("It's the café", random.Random(0))
    assert spoilt == "Itâ€™s thÃ© cafÃ©"
    assert spoilt.encode("cp1252").decode("utf-8") == "It’s thé café"


def test_boilerplate_and_repetition_hold_the_text():
    rng = random.Random(0)
    page = boilerplate("The text.", rng).split("\n")
    assert page[2] == "The text."
    assert len(page) == 6
    again = repetition(TEXT, rng)
    assert again.startswith(TEXT)
    assert len(again.split()) >= len(TEXT.split()) + 8


def test_a_wrong_fact_is_one_fact_of_the_same_kind():
    rng = random.Random(0)
    for person in people()[:50]:
        text = biography(person, rng)
        changed = [
            (one, other)
            for one, other in zip(text.split(), wrong_fact(text, rng).split(), strict=True)
            if one != other
        ]
        assert len(changed) == 1
    text = "Ada Ash lives in Elmford."
    assert wrong_fact(text, rng) in {f"Ada Ash lives in {city}." for city in CITIES} - {text}


def test_parts_of_words_are_no_facts():
    text = "It indicates a thorny education."  # cat, horn, cat
    assert wrong_fact(text, random.Random(0)) == text


def test_a_stream_with_labels():
    sound = [f"Text {n} says that number {n} is its own." for n in range(500)]
    stream = list(damaged(sound, share=0.5, seed=3))
    assert [text for text, label in stream if not label] == sound
    labels = Counter(label for _, label in stream if label)
    assert set(labels) == set(DAMAGES) - {"wrong_fact"}  # there is no fact of the world in it
    assert 150 < sum(labels.values()) < 260
    assert stream == list(damaged(sound, share=0.5, seed=3))
    assert stream != list(damaged(sound, share=0.5, seed=4))


def test_a_near_copy_stands_after_its_original():
    sound = [" ".join(f"w{n}x{place}" for place in range(60)) for n in range(200)]
    seen: set[str] = set()
    for text, label in damaged(sound, share=0.5):
        if label == "near_copy":
            assert any(len(set(text.split()) & set(one.split())) > 50 for one in seen)
        seen.add(text)


def test_texts_without_words_and_streams_without_end():
    assert list(damaged(["", " \n"], share=1.0)) == []
    endless = (f"number {n} and more" for n in iter(int, 1))
    assert len(list(islice(damaged(endless), 100))) == 100
