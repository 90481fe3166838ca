"""The stepper draws the tokens of the merges it was given; the menus reach every sentence."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.learn.widgets import bpe
from qwen2lite.learn.widgets.bpe import (
    ColouredTokens,
    draw_merges,
    explore_merges,
    explore_tokens,
    show_tokens,
    visible,
)
from qwen2lite.learn.work import lesson_sentences
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.text.vocabulary import vocabulary_of

MERGES = [(b"h", b"e"), (b"t", b"he"), (b" ", b"the"), (b"\xc3", b"\xbc")]


@pytest.fixture
def menus(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **menus: shown.append((draw, menus)))
    return shown


def boxes(panel):
    """The texts of each line, from left to right, where there is a box of the right width."""
    found = {}
    for box, text in zip(panel.patches, panel.texts, strict=True):
        assert box.get_width() == len(text.get_text())
        assert text.get_position()[0] == box.get_x() + box.get_width() / 2
        found.setdefault(text.get_position()[1], []).append(text.get_text())
    return [found[row] for row in sorted(found)]


def test_what_cannot_be_seen_is_shown():
    assert [visible(t) for t in (b" the\n", "ü".encode(), b"\xc3", b"")] == ["·the⏎", "ü", "C3", ""]


def test_a_line_holds_the_tokens_of_so_many_merges():
    draw_merges("the hen ü", MERGES, [0, 2, 4])
    [panel] = plt.gcf().axes
    assert boxes(panel) == [
        ["t", "h", "e", "·", "h", "e", "n", "·", "C3", "BC"],
        ["the", "·", "he", "n", "·", "C3", "BC"],
        ["the", "·", "he", "n", "·", "ü"],
    ]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == ["0 merges: 10 tokens", "2 merges: 7 tokens", "4 merges: 6 tokens"]
    assert panel.get_title() == "Merge by merge, 10 tokens become 6"


def test_the_slider_goes_from_no_merge_to_the_last(menus):
    explore_merges("the", MERGES)
    [(draw, sliders)] = menus
    assert (sliders["count"].min, sliders["count"].max) == (0, 4)
    draw(count=3)
    assert plt.gca().get_title() == "Merge 3 is · + the"
    plt.close()
    draw(count=0)
    assert plt.gca().get_title() == "No merges: every byte is a token"


def test_coloured_tokens_are_the_text_and_safe_html():
    view = ColouredTokens([b"<b>", b" a", b"\xe7"])
    assert repr(view) == "3 tokens: <b>│·a│E7"
    page = view._repr_html_()
    assert "<bdi>&lt;b&gt;</bdi>" in page and "<b>" not in page
    assert page.count("<code") == 3 and page.count("background:#") == 3


def test_the_menus_reach_every_sentence_and_a_control_token_is_text(menus, monkeypatch):
    said = []
    monkeypatch.setattr(bpe, "show", lambda thing: said.append(repr(thing)))
    tokenizer = Qwen2Tokenizer(vocabulary_of(MERGES))
    explore_tokens({"ours": tokenizer}, {"en": ["the", "he"], "de": ["die", "er"]})
    [(draw, parts)] = menus
    assert parts["language"].options == ("en", "de")
    assert (parts["sentence"].min, parts["sentence"].max) == (1, 2)
    draw(vocabulary="ours", language="de", sentence=2)
    show_tokens(tokenizer, "<|im_end|>")
    assert said == ["2 tokens: e│r", "10 tokens: <│|│i│m│_│e│n│d│|│>"]


def test_the_sentences_are_the_same_six_in_every_language():
    sentences = lesson_sentences()
    assert len(sentences) == 27 and sentences["de"][3] == "Wo ist der Bahnhof?"
    assert {len(texts) for texts in sentences.values()} == {6}
    assert len({text for texts in sentences.values() for text in texts}) == 27 * 6
