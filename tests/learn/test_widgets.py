"""Explorers draw what they say, and moving a slider draws again."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.learn.widgets.rope import draw_dials, explore_dials, explore_distance


def test_the_dials_heed_only_the_distance():
    draw_dials(query_at=8, key_at=3)
    draw_dials(query_at=48, key_at=43)
    here, there = (plt.figure(n).get_suptitle() for n in plt.get_fignums())
    assert here == there and here.startswith("5 tokens apart: score over all 32 pairs 0.823")


@pytest.mark.parametrize("explore", [explore_dials, explore_distance])
def test_a_slider_draws_another_picture(explore, monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore()
    [(draw, sliders)] = shown
    values = {name: slider.value for name, slider in sliders.items()}
    first, slider = next(iter(sliders.items()))
    draw(**values)
    draw(**{**values, first: slider.value * 2})
    titles = [plt.figure(n).get_suptitle() or plt.gca().get_title() for n in plt.get_fignums()]
    assert titles[0] != titles[1]
