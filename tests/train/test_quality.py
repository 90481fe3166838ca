"""Each rule on a text that breaks it and nothing else; together on labelled damage."""

import random
from itertools import islice, product

import pytest

from qwen2lite.train.corpus import Document, code, docstrings
from qwen2lite.train.damage import DAMAGES
from qwen2lite.train.quality import RULES, faults, without_faults

SOUND = """When the last boat had left, the harbour became quiet. Gulls walked along the wall and
looked for what the fishermen had dropped, and an old dog slept beside the nets. Nobody spoke. Only
the water went on telling its one story, a little louder against the steps than under the bridge."""
CHINESE = "最后一条船离开以后，港口安静了下来。海鸥沿着堤岸走来走去，一只老狗睡在渔网旁边。"
BROKEN = {
    "too_short": "Nothing much to see here.",
    "too_long": " ".join([SOUND, *map("".join, product("abcdefghij", repeat=5))]),
    "odd_words": " ".join("antidisestablishmentarianism" + end for end in "abcdefghijkl"),
    "few_letters": "1234 5678 == 9012 | a table with some words in it 3456 7890 1234 5678",
    "repeated_lines": "\n".join([*SOUND.splitlines(), *["Menu"] * 4]),
    "repeated_phrases": SOUND[:80] + " and over the hill we go" * 4,
    "one_word": "word and word or word but word as word if word so word on word",
    "page_furniture": SOUND + "\nWe use cookies. Click here to accept all cookies.",
    "broken_lines": "\n".join(line + "..." for line in SOUND.splitlines()),
    "wrong_encoding": SOUND + " The cafÃ© isnâ€™t open.",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_text_that_breaks_just_this_rule(rule):
    assert faults(BROKEN[rule.__name__]) == [rule.__name__]
    assert rule.__doc__, "the docstring is the reason"


@pytest.mark.parametrize(
    "text",
    [
        SOUND,
        CHINESE,
        "Le café n’est pas ouvert – « dommage ! » – dit-elle, mais l’hôtel à côté l’est déjà.",
        "Ân sạch, uống sạch và ngủ đủ giấc: đó là ba điều mà bà tôi luôn luôn nhắc chúng tôi.",
        "อากาศวันนี้ดีมาก เราจึงเดินไปตลาดริมแม่น้ำและซื้อผลไม้กลับบ้าน",
    ],
)
def test_sound_texts_pass(text):
    assert faults(text) == []


def test_letters_set_apart_are_odd_words():
    assert "odd_words" in faults("t h i s i s s p a c e d o u t t e x t")


def test_no_text_at_all():
    assert faults("") == ["too_short"]
    assert faults(" \n\t") == ["too_short"]


def test_a_stream_passes():
    documents = [Document(text, "s") for text in (SOUND, BROKEN["one_word"], CHINESE)]
    assert list(without_faults(documents)) == [documents[0], documents[2]]
    assert len(list(without_faults(documents, rules=()))) == 3


@pytest.fixture(scope="module")
def prose():
    """Docstrings of ten words and more: sound texts that nobody wrote for these rules."""
    texts = (document.text for document in islice(docstrings(), 3000))
    return [text for text in texts if "too_short" not in faults(text)]


def test_few_sound_texts_are_dropped(prose):
    assert len(prose) > 1000
    assert sum(bool(faults(text)) for text in prose) < 0.03 * len(prose)


def test_most_code_passes():
    files = [document.text for document in islice(code(), 150)]
    assert sum(bool(faults(text)) for text in files) < 0.15 * len(files)


@pytest.mark.parametrize(
    ("damage", "least", "most"),
    [
        ("boilerplate", 0.98, 1),
        ("mojibake", 0.98, 1),
        ("repetition", 0.9, 1),
        # What needs a memory, a grammar or knowledge no rule about form can see.
        ("near_copy", 0, 0.05),
        ("shuffled_words", 0, 0.05),
    ],
)
def test_recall_by_kind_of_damage(prose, damage, least, most):
    rng = random.Random(0)
    sound = [text for text in prose if not faults(text)][:400]
    found = sum(bool(faults(DAMAGES[damage](text, rng))) for text in sound) / len(sound)
    assert least <= found <= most
