"""The picture shows what each step reads, its titles count it, and the sliders reach every step."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.learn.widgets.cache import draw_reading, explore_reading, reading_steps


def test_steps_by_hand():
    assert reading_steps(2, 3, cached=False).tolist() == [[2, 2, 0, 0], [2, 2, 2, 0], [2, 2, 2, 2]]
    assert reading_steps(2, 3, cached=True).tolist() == [[2, 2, 0, 0], [1, 1, 2, 0], [1, 1, 1, 2]]
    assert reading_steps(1, 1, cached=True).tolist() == [[2]]


@pytest.mark.parametrize(("prompt", "new"), [(1, 1), (4, 8), (24, 24), (5, 1)])
def test_the_counts_are_the_sums(prompt, new):
    read = [int((reading_steps(prompt, new, cached) == 2).sum()) for cached in (False, True)]
    assert read == [sum(range(prompt, prompt + new)), prompt + new - 1]


def titles():
    return [panel.get_title() for panel in plt.gcf().axes]


def test_the_titles_count_what_is_shown():
    draw_reading(4, 8)
    assert titles() == ["Without: 60 tokens read", "With a cache: 11 tokens read"]
    draw_reading(4, 8, step=2)
    assert titles() == ["Without: 9 tokens read", "With a cache: 5 tokens read"]
    assert plt.gcf().axes[1].images[0].get_array()[2:].max() == 0
    draw_reading(1, 1, step=20)
    assert titles() == ["Without: 1 token read", "With a cache: 1 token read"]


def test_the_sliders_begin_with_the_picture_above_them(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_reading()
    [(draw, sliders)] = shown
    draw(**{name: slider.value for name, slider in sliders.items()})
    assert titles() == ["Without: 60 tokens read", "With a cache: 11 tokens read"]
    draw(**{name: slider.max for name, slider in sliders.items()})
    assert titles() == ["Without: 852 tokens read", "With a cache: 47 tokens read"]
    draw(**{name: slider.min for name, slider in sliders.items()})
