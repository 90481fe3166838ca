"""The picture of lesson 52 shows the package's frequencies, and the sliders reach it."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.learn.widgets import yarn as widget
from qwen2lite.model.rope import rotary_frequencies
from qwen2lite.model.yarn import yarn


def test_qwen2s_pairs_by_hand():
    assert widget.kinds(32.0, 1.0) == (12, 8, 12)
    turns_R = widget.turns()
    assert turns_R[0] == pytest.approx(5215.2, rel=1e-4)
    assert turns_R[11] > 32 > turns_R[12] and turns_R[19] > 1 > turns_R[20]


def test_the_line_is_what_is_left_of_the_frequencies():
    widget.draw_ramp(8.0, 16.0, 0.5)
    panel = plt.gcf().axes[0]
    frequencies_R = rotary_frequencies(64, 1e6)
    slowed_R, _ = yarn(frequencies_R, 1e6, 8.0, 32_768, beta_fast=16.0, beta_slow=0.5)
    assert panel.lines[1].get_ydata().tolist() == pytest.approx((slowed_R / frequencies_R).tolist())
    assert list(panel.lines[0].get_ydata()) == [1 / 8] * 32
    alone, blended, whole = widget.kinds(16.0, 0.5)
    assert alone + blended + whole == 32
    assert panel.get_title().startswith(f"Factor 8: {alone} pairs stay, {blended} are blended")


def test_the_sliders_draw_the_same_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **given: shown.append((draw, given)))
    widget.explore_ramp()
    [(draw, given)] = shown
    draw(**{name: one.value for name, one in given.items()})
    assert plt.gcf().axes[0].get_title() == (
        "Factor 4: 12 pairs stay, 8 are blended, 12 divided; scores times 1.30"
    )
    for name in ("min", "max"):
        ends = {key: 2 ** getattr(one, name) for key, one in given.items()}
        draw(**ends)
