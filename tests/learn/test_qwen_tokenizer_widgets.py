"""The bars of the languages are counts by hand, and the menus choose pattern and sentence."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.learn.widgets.qwen_tokenizer import (
    PATTERNS,
    count_tokens,
    draw_languages,
    explore_languages,
    read_languages,
    relative_cost,
)
from qwen2lite.text.vocabulary import vocabulary_of

# "ab" and " ab" are tokens; everything else is bytes.
VOCABULARY = vocabulary_of([(b"a", b"b"), (b" ", b"ab")])
LANGUAGES = {
    "English": ["ab ab", "ab"],  # 2 + 1 tokens
    "Dear": ["xyz xyz", "12345"],  # 7 + 5 bytes
    "Cheap": ["ab", "ab"],
}


def test_tokens_by_hand():
    assert count_tokens(VOCABULARY, ["ab ab", "ab"]) == 3
    assert count_tokens(VOCABULARY, ["e\u0301"]) == 2  # é: one character, two bytes
    cost = relative_cost(VOCABULARY, LANGUAGES)
    assert cost == {"Cheap": 2 / 3, "English": 1, "Dear": 4}
    assert list(cost) == ["Cheap", "English", "Dear"]


def test_another_pattern_cuts_other_words():
    vocabulary = vocabulary_of([(b"1", b"2"), (b"12", b"3")])
    assert count_tokens(vocabulary, ["1234"]) == 4
    assert count_tokens(vocabulary, ["1234"], PATTERNS["digits in threes, as in GPT-4"]) == 2


def test_the_bars_are_the_costs_and_the_title_names_both_ends():
    draw_languages(VOCABULARY, LANGUAGES)
    [panel] = plt.gcf().axes
    widths = [bar.get_width() for bar in panel.patches]
    assert widths == pytest.approx([2 / 3, 1, 4])
    assert [label.get_text() for label in panel.get_yticklabels()] == ["Cheap", "English", "Dear"]
    assert panel.get_title() == "What English says in one token costs Dear 4.0, Cheap 0.67"


def test_a_bar_that_another_pattern_moves_is_marked():
    merges = [(b"1", b"2"), (b"12", b"3")]
    texts = {"English": ["a"], "Numbers": ["1234"]}
    draw_languages(vocabulary_of(merges), texts, "digits in threes, as in GPT-4")
    [panel] = plt.gcf().axes
    english, numbers = panel.patches
    assert (english.get_width(), numbers.get_width()) == (1, 2)
    assert english.get_facecolor() != numbers.get_facecolor()
    assert sorted(panel.collections[0].get_offsets()[:, 0]) == [1, 4]


def test_the_menus_choose_pattern_and_sentence(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **menus: shown.append((draw, menus)))
    explore_languages(VOCABULARY, LANGUAGES)
    [(draw, menus)] = shown
    assert list(menus["pattern"].options) == list(PATTERNS)
    assert [value for _, value in menus["sentence"].options] == [-1, 0, 1]
    draw(pattern="Qwen2's own", sentence=1)
    widths = [bar.get_width() for bar in plt.gcf().axes[0].patches]
    assert widths == [1, 1, 5]


def test_the_file_has_the_same_sentences_in_every_language():
    languages = read_languages()
    assert len(languages) >= 20 and "English" in languages
    assert {len(sentences) for sentences in languages.values()} == {6}
    assert all(name.isascii() for name in languages)
