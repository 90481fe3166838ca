"""The bars are the sums written out, the flat parts those of the formula, and the curves the run's."""

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from qwen2lite.align.ppo import Measured
from qwen2lite.learn.widgets.colours import GREEN, ORANGE
from qwen2lite.learn.widgets.ppo import (
    Judged,
    draw_clip,
    draw_judged,
    draw_run,
    explore_clip,
    explore_judged,
)

WRONG = Judged(["Kate", " Grove", "<|im_end|>"], [0.0, 0.1, -0.5], [0.25, -0.25, -0.5])


def heights(panel):
    return [bar.get_height() for bar in panel.patches]


def curve(panel):
    return np.array(panel.lines[0].get_xydata()).T


def flat(panel):
    """From where to where nothing is to be gained, as it is shaded."""
    [span] = panel.patches
    return span.get_x(), span.get_x() + span.get_width()


def controls(monkeypatch, explore, *args):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore(*args)
    [one] = shown
    return one


# By hand: the surprises are 0 - 0.25 - 0.25, 0.1 - 0.5 + 0.25 and -0.5 + 0.5.
@pytest.mark.parametrize(
    ("decay", "ahead"),
    [(0.0, [-0.5, -0.15, 0.0]), (0.5, [-0.575, -0.15, 0.0]), (1.0, [-0.65, -0.15, 0.0])],
)
def test_three_rows_of_bars(decay, ahead):
    draw_judged(WRONG, decay)
    rewards, values, advantages = plt.gcf().axes
    assert heights(rewards) == WRONG.rewards and heights(values) == WRONG.values
    assert heights(advantages) == pytest.approx(ahead, abs=1e-6)
    assert plt.gcf().get_suptitle() == f"With λ = {decay:g}, 'Kate' is blamed most"
    labels = [label.get_text() for label in advantages.get_xticklabels()]
    assert labels == ["Kate", "␣Grove", "<|im_end|>"]


def test_what_is_below_zero_has_another_colour():
    draw_judged(WRONG)
    colours = [to_hex(bar.get_facecolor()) for bar in plt.gcf().axes[0].patches]
    assert colours == [GREEN.lower(), GREEN.lower(), ORANGE.lower()]


def test_where_all_is_better_than_expected_nobody_is_blamed():
    draw_judged(Judged(["Ella", "."], [0.0, 1.0], [0.2, 0.4]), 0.9)
    assert plt.gcf().get_suptitle() == "With λ = 0.9, no token is blamed"


def test_another_decay_and_another_answer_are_drawn(monkeypatch):
    right = Judged(["Ella", "."], [0.0, 1.0], [0.2, 0.4])
    draw, boxes = controls(monkeypatch, explore_judged, {"wrong": WRONG, "right": right})
    assert list(boxes) == ["decay", "answer"] and boxes["decay"].value == 0.95
    first = []
    for decay in (0.0, 1.0):
        assert decay in boxes["decay"].options
        draw(decay=decay, answer="wrong")
        first.append(heights(plt.gcf().axes[2])[0])
    assert first == pytest.approx([-0.5, -0.65], abs=1e-6)
    draw(decay=1.0, answer=boxes["answer"].options[1])
    assert heights(plt.gcf().axes[2]) == pytest.approx([0.8, 0.6], abs=1e-6)


@pytest.mark.parametrize(("clip", "advantage"), [(0.2, 1.0), (0.5, 2.0)])
def test_the_loss_is_flat_where_it_is_shaded(clip, advantage):
    draw_clip(clip, advantage)
    good, bad = plt.gcf().axes
    assert flat(good) == pytest.approx((1 + clip, 2.5)) and flat(bad) == pytest.approx(
        (0, 1 - clip)
    )
    for panel, sign in ((good, 1), (bad, -1)):
        ratio, loss = curve(panel)
        first, last = flat(panel)
        inside = (ratio > first) & (ratio < last)
        slopes = np.diff(loss) / np.diff(ratio)
        # The slope between two points is flat if both are inside, and that of -ρA if neither is.
        assert np.abs(slopes[inside[1:] & inside[:-1]]).max() < 1e-12
        outside = ~inside[1:] & ~inside[:-1]
        np.testing.assert_allclose(slopes[outside], -sign * advantage, rtol=1e-9)
        assert np.interp(1, ratio, loss) == pytest.approx(-sign * advantage, rel=1e-9)
    assert good.get_title().endswith(f"from {1 + clip:g}")
    assert bad.get_title().endswith(f"below {1 - clip:g}")


def test_another_clip_is_drawn(monkeypatch):
    draw, boxes = controls(monkeypatch, explore_clip)
    assert list(boxes) == ["clip", "advantage"]
    starts = []
    for clip in (boxes["clip"].min, boxes["clip"].value, boxes["clip"].max):
        draw(clip=clip, advantage=boxes["advantage"].min)
        starts.append(flat(plt.gcf().axes[0])[0])
    assert starts == pytest.approx([1.05, 1.2, 1.9])


def test_a_run_is_drawn_as_it_was_measured():
    first, second = Measured(0.5, 0.0, 9, 0, -0.2, 0), Measured(0.75, 0.3, 9, 0, 0.4, 0.1)
    draw_run([first, second], {1: 0.6, 2: 0.7}, 1, "it rises")
    scores, distances, foreseen = plt.gcf().axes
    assert curve(scores).tolist() == [[1, 2], [0.5, 0.75]]
    assert scores.lines[1].get_xydata().tolist() == [[1, 0.6], [2, 0.7]]
    assert curve(distances).tolist() == [[1, 2], [0, 0.3]]
    assert curve(foreseen).tolist() == [[1, 2], [-0.2, 0.4]]
    assert [flat(panel) for panel in plt.gcf().axes] == [(0, 1)] * 3
    assert plt.gcf().get_suptitle() == "it rises"
