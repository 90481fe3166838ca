"""The curves are those of the loss, and the bars those of the counts."""

import math

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest

from qwen2lite.align.dpo import Measured
from qwen2lite.learn.widgets.dpo import draw_kinds, draw_loss, draw_run, explore_loss


def curve(panel, number=0):
    return np.array(panel.lines[number].get_xydata())


@pytest.mark.parametrize("beta", [0.02, 0.1, 1.0])
def test_loss_and_pull_are_those_of_the_formula(beta):
    draw_loss(beta)
    losses, pulls = plt.gcf().axes
    margin, loss = curve(losses).T
    np.testing.assert_allclose(loss, np.log1p(np.exp(-beta * margin)), rtol=1e-12, atol=1e-15)
    margin, pull = curve(pulls).T
    np.testing.assert_allclose(pull, beta / (1 + np.exp(beta * margin)), rtol=1e-12, atol=1e-15)
    assert loss[margin == 0] == pytest.approx(math.log(2), abs=1e-15)


def test_the_title_names_where_a_pair_pulls_half_as_hard():
    draw_loss(0.1)
    title = plt.gcf().get_suptitle()
    assert title.endswith("11.0 nats") and "β = 0.1" in title
    pulls = plt.gcf().axes[1]
    dotted = curve(pulls, 2)[0, 0]
    margin, pull = curve(pulls).T
    assert np.interp(dotted, margin, pull) == pytest.approx(pull[margin == 0].item() / 2, rel=1e-3)


def test_a_margin_far_outside_has_no_line():
    draw_loss(0.01)
    assert all(len(panel.lines) == 2 for panel in plt.gcf().axes)


def test_another_beta_is_drawn(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_loss()
    [(draw, boxes)] = shown
    assert list(boxes) == ["beta"] and boxes["beta"].value == 0.1
    pulls = []
    for beta in boxes["beta"].options:
        draw(beta=beta)
        margin, pull = curve(plt.gcf().axes[1]).T
        pulls.append(pull[margin == 0].item())
    assert pulls == pytest.approx([beta / 2 for beta in boxes["beta"].options], abs=1e-15)


def test_a_run_is_drawn_as_it_was_measured():
    at_first = Measured(math.log(2), 0.0, 0.0, 0.0, 0.0)
    later = Measured(0.5, 4.0, 0.75, -1.0, -5.0)
    draw_run([0, 10], [at_first, later], [0.6, 0.5], "both fall")
    shares, gains = plt.gcf().axes
    assert curve(shares).tolist() == [[10, 75]]  # nothing is won or lost before the first step
    assert curve(shares, 1).tolist() == [[0, 60], [10, 50]]
    assert curve(gains, 1).tolist() == [[0, 0], [10, -1]]
    assert curve(gains, 2).tolist() == [[0, 0], [10, -5]]
    assert plt.gcf().get_suptitle() == "both fall"
    assert [text.get_text() for text in gains.get_legend().texts] == ["chosen", "rejected"]


def test_bars_are_shares_one_after_another():
    counts = {
        "before": {"right": 3, "name": 1, "value": 0},
        "after": {"right": 1, "name": 0, "value": 1},
    }
    draw_kinds(counts, "fewer names")
    [panel] = plt.gcf().axes
    got = [[(bar.get_x(), bar.get_width()) for bar in kind] for kind in panel.containers]
    assert got == [[(0, 75), (0, 50)], [(75, 25), (50, 0)], [(100, 0), (50, 50)]]
    assert [text.get_text() for text in panel.texts] == ["75", "50", "25", "", "", "50"]
    assert panel.get_title() == "fewer names" and panel.get_ylim()[0] > panel.get_ylim()[1]
