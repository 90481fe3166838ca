"""The heat maps and lines hold the loads of the runs, and the selector reaches every run and layer."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite.learn.widgets.shared_experts import (
    WINDOW,
    busiest_share,
    draw_loads,
    draw_shares,
    explore_loads,
    smooth,
)

STEPS = WINDOW + 5


def some_runs():
    """Two layers of eight experts. In layer 1 of "few" the last two get everything."""
    even = torch.full((STEPS, 2, 8), 1 / 8)
    few = even.clone()
    few[:, 1] = torch.tensor([0, 0, 0, 0, 0, 0, 0.25, 0.75])
    return {"even": even, "few": few}


def test_shares_by_hand():
    runs = some_runs()
    assert busiest_share(runs["even"][:, 0]).tolist() == pytest.approx([0.25] * 6)
    assert busiest_share(runs["few"][:, 1]).tolist() == pytest.approx([1.0] * 6)


def test_a_window_is_a_mean():
    loads = torch.zeros(WINDOW + 1, 4)
    loads[0, 0] = 1.0
    assert smooth(loads)[:, 0].tolist() == pytest.approx([1 / WINDOW, 0])


def test_a_picture_has_the_busiest_on_top():
    draw_loads(some_runs(), ["even", "few"], 1, "a title")
    drawn = plt.gcf().axes[1].images[0].get_array()
    assert drawn[:3, -1].tolist() == pytest.approx([0.75, 0.25, 0])
    titles = [panel.get_title() for panel in plt.gcf().axes[:2]]
    assert titles == [
        "even\nbusiest quarter: 25% at the end",
        "few\nbusiest quarter: 100% at the end",
    ]
    assert plt.gcf().get_suptitle() == "a title"


def test_lines_hold_the_shares():
    draw_shares(some_runs(), 1, "a title")
    lines = plt.gcf().axes[0].lines
    assert [line.get_label() for line in lines] == ["even", "few", "all alike"]
    assert lines[1].get_xdata()[0] == WINDOW and lines[1].get_xdata()[-1] == STEPS
    assert lines[1].get_ydata().tolist() == pytest.approx([1.0] * 6)


def test_the_selector_reaches_every_run_and_layer(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_loads(some_runs())
    [(draw, boxes)] = shown
    assert boxes["run"].options == ("even", "few")
    assert (boxes["layer"].min, boxes["layer"].max) == (0, 1)
    draw(run="few", layer=1)
    assert plt.gcf().axes[0].get_title().startswith("few\nbusiest quarter: 100%")
