"""The picture of a choice marks the lowest point of the sum, and the slider moves the weight."""

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest

from qwen2lite.learn.widgets.mixture_experiment import draw_choice, explore_choice, flat, weighted
from qwen2lite.train.mixing import MixingLaw

SHARES = [0.1, 0.5, 0.9]
LAWS = {"stories": MixingLaw(1.0, (-4.0, 0.0)), "lives": MixingLaw(1.0, (0.0, -4.0))}
LOSSES = {name: [law((1 - s, s)) for s in SHARES] for name, law in LAWS.items()}


def test_the_flat_part_by_hand():
    at, sums = np.array([0.1, 0.2, 0.3, 0.4]), np.array([2.0, 1.5, 1.6, 1.8])
    assert flat(at, sums, 0.1) == (0.2, 0.3)
    assert flat(at, sums, 9) == (0.1, 0.4)


def test_a_weighted_sum_is_one_domain_at_the_ends():
    at = np.array(SHARES)
    assert weighted(LAWS, 0.0, at) == pytest.approx(LOSSES["stories"])
    assert weighted(LAWS, 1.0, at) == pytest.approx(LOSSES["lives"])


def marked():
    panel = plt.gcf().axes[0]
    mark = next(line for line in panel.lines if line.get_marker() == "v")
    return float(mark.get_xdata()[0]), panel


def test_the_mark_is_in_the_middle_when_both_count_alike():
    draw_choice(SHARES, LOSSES, LAWS, weight=0.5)
    share, panel = marked()
    assert share == pytest.approx(0.5)
    assert panel.get_title().startswith("Lives count 0.50: best at 0.50 of what is read (")
    measured = next(line for line in panel.lines if line.get_label() == "lives, measured")
    assert measured.get_ydata().tolist() == LOSSES["lives"]


def test_the_slider_moves_the_mark(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_choice(SHARES, LOSSES, LAWS)
    [(draw, boxes)] = shown
    assert (boxes["weight"].min, boxes["weight"].value, boxes["weight"].max) == (0, 0.5, 1)
    draw(weight=0.8)
    assert marked()[0] == pytest.approx(0.67, abs=0.011)  # 1/2 + ln 4 / 8
