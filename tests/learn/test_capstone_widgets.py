"""What bugs do is drawn as it was measured, and the one that is chosen stands out."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex

from qwen2lite.learn.mutants.mlp import GeluGate
from qwen2lite.learn.mutants.norm import EpsOutsideRoot, MeanSubtracted
from qwen2lite.learn.widgets.capstone import Tried, draw_bugs, draw_distances, explore_bugs
from qwen2lite.learn.widgets.colours import BLUE, GREEN, GREY, ORANGE

RIGHT = Tried(24.0, "Red.", 0.0)
TRIED = {
    "eps": Tried(24.2, "Red.", 0.03, EpsOutsideRoot),
    "mean": Tried(2.5, "Blue?", 3.0, MeanSubtracted),
    "gelu": Tried(6e7, "", 16.0, GeluGate),
}
ROWS = range(len(TRIED))


def bars():
    """The figure's panel, and its bars by row."""
    [panel] = plt.gcf().axes
    found = {round(p.get_y() + p.get_height() / 2): p for p in panel.patches if p.get_width()}
    return panel, [found[row] for row in ROWS]


def test_a_bar_ends_at_its_perplexity_and_its_colour_tells_of_the_answer():
    draw_bugs(TRIED, RIGHT)
    panel, found = bars()
    for bar, tried in zip(found, TRIED.values(), strict=True):
        assert bar.get_x() == 1
        assert bar.get_x() + bar.get_width() == pytest.approx(tried.perplexity)
    assert [to_hex(bar.get_facecolor()) for bar in found] == [
        c.lower() for c in (BLUE, ORANGE, ORANGE)
    ]
    assert panel.get_title().startswith("1 of 3 bugs change no word of the answer, 2 cost less")
    assert [label.get_text() for label in panel.get_yticklabels()] == list(TRIED)
    assert panel.get_xscale() == "log" and panel.lines[0].get_xdata()[0] == RIGHT.perplexity
    low, high = panel.get_xlim()
    assert all(low <= one.xy[0] < high for one in panel.texts)
    draw_bugs(TRIED, RIGHT, "a title")
    assert bars()[0].get_title() == "a title"


def test_the_chosen_bug_stands_out_and_says_what_it_is(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_bugs(TRIED, RIGHT)
    [(draw, boxes)] = shown
    assert list(boxes["bug"].options) == list(TRIED)
    for place, (name, tried) in enumerate(TRIED.items()):
        draw(name)
        panel, found = bars()
        assert [bar.get_alpha() == 1 for bar in found] == [row == place for row in ROWS]
        assert name in panel.get_title()
        said = capsys.readouterr().out
        assert repr(tried.answer) in said and repr(RIGHT.answer) in said
        assert " ".join(tried.wrong.__doc__.split()) in " ".join(said.split())


def test_each_distance_is_a_dot_in_its_groups_colour():
    groups = {"right": {"a": 2e-5, "b": 0.0}, "rounded": {"c": 0.3}, "bugs": {"d": 0.03, "e": 16.0}}
    draw_distances(groups, 1e-3, "a title")
    [panel] = plt.gcf().axes
    *clouds, tolerance = panel.lines
    assert tolerance.get_xdata()[0] == 1e-3
    assert [to_hex(cloud.get_color()) for cloud in clouds] == [
        c.lower() for c in (GREEN, GREY, ORANGE)
    ]
    dots = {y: x for cloud in clouds for x, y in zip(*cloud.get_data(), strict=True)}
    assert dots == {0: 2e-5, 1: pytest.approx(2e-6), 2: 0.3, 3: 0.03, 4: 16.0}
    assert [text.get_text().strip() for text in panel.texts][1] == "exactly 0"
    assert [label.get_text() for label in panel.get_yticklabels()] == list("abcde")
