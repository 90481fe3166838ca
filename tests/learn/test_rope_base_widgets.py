"""The picture of lesson 51 counts circles as arithmetic does, and the sliders reach it."""

import math

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.learn.widgets import rope_base


def test_circles_are_those_of_the_formula():
    found = rope_base.circles(1e6, 32_768)
    for i in (0, 11, 31):
        want = 32_768 * 1e6 ** (-2 * i / 64) / (2 * math.pi)
        assert found[i] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("base", "length", "new"),
    [(1e4, 4096, 0), (1e4, 32_768, 9), (1e6, 32_768, 0), (1.8e5, 32_768, 1), (1.81e5, 32_768, 0)],
)
def test_new_angles_end_where_the_base_is_large_enough(base, length, new):
    assert len(rope_base.new_angles(base, length)) == new


def test_the_title_counts_and_the_bars_are_those_of_training():
    rope_base.draw_circles(1e4, 32_768)
    panel = plt.gcf().axes[0]
    assert panel.get_title() == (
        "Base 10,000, 32,768 tokens: 9 pairs meet angles never seen in training"
    )
    heights = [bar.get_height() for bar in panel.containers[0]]
    assert heights == pytest.approx(rope_base.circles(1e4, 4096))
    assert list(panel.lines[1].get_xdata()) == list(range(23, 32))


def test_the_sliders_draw_the_same_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **given: shown.append((draw, given)))
    rope_base.explore_circles()
    [(draw, given)] = shown
    draw(**{name: widget.value for name, widget in given.items()})
    assert "9 pairs meet" in plt.gcf().axes[0].get_title()


def test_perplexities_stand_in_the_middle_of_their_groups():
    rope_base.draw_by_position({"a": [2.0, 3.0], "b": [1.5, 9.0]}, 128, 256, "a title")
    panel = plt.gcf().axes[0]
    assert list(panel.lines[0].get_xdata()) == [64, 192]
    assert list(panel.lines[1].get_ydata()) == [1.5, 9.0]
    assert panel.lines[2].get_xdata()[0] == 256
    assert panel.get_title() == "a title"
