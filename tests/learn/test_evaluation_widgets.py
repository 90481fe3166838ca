"""Pictures of an examination show the numbers that were measured, and an explorer the chosen ones."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex

from qwen2lite.evaluate.choice import WAYS, Question, Scored
from qwen2lite.evaluate.uncertainty import wilson
from qwen2lite.learn.widgets.colours import BLUE
from qwen2lite.learn.widgets.evaluation import (
    COMPARED,
    draw_letters,
    draw_options,
    draw_scores,
    explore_options,
)

MOON = Scored(
    Question("Why does the Moon shine?", ("It reflects the Sun", "It burns"), 0),
    tokens=(5, 2),
    letter_logps=(-0.5, -1.0),
    option_logps=(-10.0, -8.0),
    alone_logps=(-20.0, -11.0),
)
TIDES = Scored(
    Question("What makes tides?", ("Wind", "The Moon"), 1),
    tokens=(1, 2),
    letter_logps=(-0.7, -0.9),
    option_logps=(-5.0, -6.0),
)


def texts(panel):
    return [text.get_text() for text in panel.texts]


def test_a_bar_has_its_share_and_its_interval():
    draw_scores({"letter": [True] + 3 * [False], "sum": [True, True]}, "a title", 0.25)
    [panel] = plt.gcf().axes
    assert [bar.get_height() for bar in panel.patches] == [25, 100]
    assert texts(panel) == ["25", "100"] and panel.get_title() == "a title"
    drawn = [bars[2][0].get_segments()[0][:, 1].tolist() for bars in panel.containers[1::2]]
    for found, (right, total) in zip(drawn, ((1, 4), (2, 2)), strict=True):
        assert found == pytest.approx([100 * end for end in wilson(right, total)])
    assert [text.get_text() for text in plt.gcf().legends[0].texts] == ["guessing"]
    draw_scores({"sum": [True]}, "without chance")
    assert not plt.gcf().legends


def test_letters_are_counted():
    draw_letters([MOON, TIDES, TIDES], "always A")
    [panel] = plt.gcf().axes
    right, taken = panel.containers
    assert [bar.get_height() for bar in right] == [1, 2]
    assert [bar.get_height() for bar in taken] == [3, 0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["A", "B"]


@pytest.mark.parametrize(
    ("by", "values", "taken"),
    [
        ("letter", ["-0.50", "-1.00"], 0),
        ("sum", ["-10.00", "-8.00"], 1),
        ("token", ["-2.00", "-4.00"], 0),
        ("byte", ["-0.50", "-0.89"], 0),
        ("unconditional", ["10.00", "3.00"], 0),
    ],
)
def test_the_longest_bar_is_the_answer(by, values, taken):
    draw_options(MOON, by)
    [panel] = plt.gcf().axes
    assert texts(panel) == values
    widths = [bar.get_width() for bar in panel.patches]
    assert widths.index(max(widths)) == taken and min(widths) > 0
    assert [to_hex(bar.get_facecolor()) == BLUE.lower() for bar in panel.patches] == [
        place == taken for place in range(2)
    ]
    assert [label.get_text()[-1] == "✓" for label in panel.get_yticklabels()] == [True, False]
    assert panel.get_xlabel() == COMPARED[by]
    assert f"takes {'AB'[taken]}: {'wrong' if taken else 'right'}" in panel.get_title()


def test_equal_options_have_bars_too():
    equal = Scored(TIDES.question, (1, 1), option_logps=(-3.0, -3.0))
    draw_options(equal)
    assert all(bar.get_width() > 0 for bar in plt.gca().patches)


def test_every_way_has_a_label():
    assert COMPARED.keys() == WAYS.keys()


def test_the_chosen_question_is_drawn_and_ways_that_were_not_read_cannot_be_chosen(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_options([MOON, TIDES], first=1)
    [(draw, boxes)] = shown
    assert boxes["question"].value == "What makes tides?" and boxes["by"].value == "sum"
    assert boxes["by"].options == ("letter", "sum", "token", "byte")
    for one in (MOON, TIDES):
        for by in boxes["by"].options:
            draw(question=one.question.question, by=by)
            assert plt.gca().get_title().startswith(f"{one.question.question}\nBy {by} ")
    explore_options([Scored(TIDES.question, (1, 2), letter_logps=(-1.0, -2.0))])
    assert shown[-1][1]["by"].value == "letter"
