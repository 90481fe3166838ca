"""The bars are the cut that `expert_columns` makes, and the sliders reach every cut."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite.learn.widgets.upcycling import draw_cut, explore_cut, pieces
from qwen2lite.train.upcycle import expert_columns


def test_a_cut_by_hand():
    across = [(0, 0, 4, 0), (0, 4, 4, 1), (0, 8, 2, 2), (1, 0, 2, 2), (1, 2, 8, -1)]
    assert pieces(10, 4, 3, "across") == across
    within = [(0, 0, 4, 0), (0, 4, 4, 1), (0, 8, 2, -1), (1, 0, 4, 2), (1, 4, 6, -1)]
    assert pieces(10, 4, 3, "within") == within


@pytest.mark.parametrize("cut", ["across", "within"])
@pytest.mark.parametrize(("dense", "width", "experts"), [(10, 4, 7), (12, 4, 6), (20, 7, 5)])
def test_it_is_the_cut_of_the_package(cut, dense, width, experts, monkeypatch):
    """With copies that aren't shuffled one sees which columns each expert gets."""
    monkeypatch.setattr(torch, "randperm", lambda size, generator: torch.arange(size))
    columns = expert_columns(dense, width, experts, torch.Generator(), cut)
    found: list[list[int]] = [[] for _ in range(experts)]
    for _, start, length, expert in pieces(dense, width, experts, cut):
        if expert >= 0:
            found[expert] += range(start, start + length)
    assert found == columns.tolist()


def test_the_57b_in_the_picture():
    draw_cut(18944, 2560, 64, "across")
    panel = plt.gcf().axes[0]
    assert panel.get_title() == "64 experts of 2,560 columns: 9 copies, 6,656 columns left over"
    assert sum(bar.get_width() for bars in panel.containers for bar in bars) == 9 * 18944
    draw_cut(18944, 2560, 64, "within", "a title")
    assert plt.gcf().axes[0].get_title() == "a title"
    assert len(plt.gcf().axes[0].get_yticks()) == 10


def test_the_sliders_reach_every_cut(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_cut(352, 96, 16)
    [(draw, boxes)] = shown
    assert (boxes["width"].value, boxes["width"].max, boxes["experts"].value) == (96, 352, 16)
    assert boxes["cut"].options == ("across", "within")
    draw(width=96, experts=16, cut="within")
    assert plt.gcf().axes[0].get_title().startswith("16 experts of 96 columns: 6 copies")
