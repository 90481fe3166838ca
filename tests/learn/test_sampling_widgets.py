"""The bars are the probabilities, before and after; the title counts what is left."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite.learn.widgets.sampling import draw_choice, explore_choice, filtered

SCORES = torch.tensor([1.0, 8.0, 2.0, 1.0, 4.0]).log()


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ((1.0, 0, 1.0), [8, 4, 2, 1, 1]),
        ((0.5, 0, 1.0), [64, 16, 4, 1, 1]),
        ((1.0, 2, 1.0), [8, 4, 0, 0, 0]),
        ((1.0, 0, 0.8), [8, 4, 2, 0, 0]),
        ((0.5, 0, 0.8), [64, 16, 0, 0, 0]),
        ((1.0, 2, 0.6), [1, 0, 0, 0, 0]),
        ((0.0, 3, 0.9), [1, 0, 0, 0, 0]),
        ((1.0, 50, 1.0), [8, 4, 2, 1, 1]),
    ],
)
def test_shares_by_hand(settings, shares):
    got, ids = filtered(SCORES, *settings)
    assert got.tolist() == pytest.approx([share / sum(shares) for share in shares])
    assert ids.tolist() == [1, 4, 2, 0, 3]


def heights():
    panel = plt.gca()
    return [[bar.get_height() for bar in bars] for bars in panel.containers]


def test_the_bars_are_the_shares():
    draw_choice(SCORES, "abcde".__getitem__, 0.5, 0, 0.8, bars=3)
    before, after = heights()
    assert before == pytest.approx([8 / 16, 4 / 16, 2 / 16, 2 / 16])
    assert after == pytest.approx([0.8, 0.2, 0, 0])
    labels = [label.get_text() for label in plt.gca().get_xticklabels()]
    assert labels == ["b", "e", "c", "2 others"]
    title = "Temperature 0.5, top-k off, top-p 0.8: 2 of 5 tokens left"
    assert plt.gca().get_title() == title


def test_a_small_vocabulary_has_no_others_and_a_blank_is_seen():
    draw_choice(SCORES, "ab \nd".__getitem__, 0.0, 0, 1.0)
    labels = [label.get_text() for label in plt.gca().get_xticklabels()]
    assert labels == ["b", "d", "␣", "a", "\\n"]
    assert plt.gca().get_title().endswith("1 of 5 tokens left")


def test_the_sliders_begin_with_the_picture_above_them(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_choice(SCORES, "abcde".__getitem__)
    [(draw, sliders)] = shown
    draw(**{name: slider.value for name, slider in sliders.items()})
    first = plt.gca().get_title(), heights()
    draw_choice(SCORES, "abcde".__getitem__)
    assert first == (plt.gca().get_title(), heights())
    for edge in ("min", "max"):
        draw(**{name: getattr(slider, edge) for name, slider in sliders.items()})
    assert "top-k 100, top-p 1: 5 of 5 tokens left" in plt.gca().get_title()
