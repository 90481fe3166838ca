"""The heat maps show the weights that they were given, and the sliders go from head to head."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite.learn.widgets.attention import draw_heads, explore_attention, summary

TOKENS = ["The", " cat", "\n", "."]


def some_weights(layers=3, heads=2):
    """Head (l, n) gives the first token a share that tells which head it is."""
    weights = torch.zeros(layers, heads, 4, 4)
    for layer in range(layers):
        for head in range(heads):
            share = (1 + layer * heads + head) / 10
            weights[layer, head] = torch.eye(4) * (1 - share)
            weights[layer, head, :, 0] += share
    return weights


def test_a_summary_by_hand():
    rows = [[1.0, 0.0, 0.0], [0.7, 0.3, 0.0], [0.1, 0.7, 0.2]]
    assert summary(torch.tensor(rows)) == "first 40%, before 70%, itself 25%"


def test_a_picture_holds_the_weights_and_hides_the_future():
    weights = some_weights()
    draw_heads(weights, TOKENS, [(0, 1), (2, 0)])
    panels = plt.gcf().axes[:2]
    for panel, (layer, head) in zip(panels, [(0, 1), (2, 0)], strict=True):
        drawn = panel.images[0].get_array()
        for t in range(4):
            for s in range(4):
                hidden = s > t
                assert bool(drawn.mask[t, s]) == hidden
                assert hidden or drawn[t, s] == pytest.approx(float(weights[layer, head, t, s]))
        assert panel.get_title().startswith(f"layer {layer}, head {head}\nfirst")
        assert [label.get_text() for label in panel.get_xticklabels()] == ["The", "cat", "␣", "."]


def test_the_sliders_reach_every_head(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_attention(some_weights(), TOKENS, start=(1, 0))
    [(draw, sliders)] = shown
    assert {name: (s.min, s.max) for name, s in sliders.items()} == {
        "layer": (0, 2),
        "head": (0, 1),
    }
    assert (sliders["layer"].value, sliders["head"].value) == (1, 0)
    draw(layer=2, head=1)
    assert plt.gcf().axes[0].get_title().startswith("layer 2, head 1\nfirst 60%")
