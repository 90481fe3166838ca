"""The heat maps show what route keeps, and the sliders go through layers and numbers of experts."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite.learn.widgets.routing import draw_router, explore_router, kept, summary

TOKENS = ["The", " cat", "\n", "."]
PROBABILITIES = [[0.7, 0.1, 0.2], [0.1, 0.3, 0.6], [0.6, 0.3, 0.1], [0.5, 0.1, 0.4]]


def scores():
    """Layer 1 has the experts of layer 0 in the reverse order."""
    first = torch.tensor(PROBABILITIES).log()
    return torch.stack([first, first.flip(1)])


def test_what_is_kept_by_hand():
    want = torch.tensor([[0.7, 0, 0.2], [0, 0.3, 0.6], [0.6, 0.3, 0], [0.5, 0, 0.4]])
    assert torch.allclose(kept(scores()[0], 2), want)


def test_a_summary_by_hand():
    said = summary(scores()[0], 0, 1)
    assert said.startswith("layer 0: 1 of 3 experts keep 60% of the probability")
    assert said.endswith("expert 0 serves 3 of 4 tokens")


def test_a_picture_holds_the_weights_and_leaves_the_others_out():
    draw_router(scores(), TOKENS, 2, [0, 1], "a title")
    for panel, layer in zip(plt.gcf().axes[:2], (0, 1), strict=True):
        drawn, want = panel.images[0].get_array(), kept(scores()[layer], 2)
        for token in range(4):
            for expert in range(3):
                unused = want[token, expert] == 0
                assert bool(drawn.mask[expert, token]) == bool(unused)
                assert unused or drawn[expert, token] == pytest.approx(float(want[token, expert]))
        assert panel.get_title().startswith(f"layer {layer}: 2 of 3 experts")
    labels = [label.get_text() for label in plt.gcf().axes[1].get_xticklabels()]
    assert labels == ["The", "cat", "␣", "."]
    assert plt.gcf().get_suptitle() == "a title"


def test_the_sliders_reach_every_layer_and_number(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_router(scores(), TOKENS, 2)
    [(draw, sliders)] = shown
    assert {name: (s.min, s.value, s.max) for name, s in sliders.items()} == {
        "layer": (0, 0, 1),
        "k": (1, 2, 3),
    }
    draw(layer=1, k=3)
    assert plt.gcf().axes[0].get_title().startswith("layer 1: 3 of 3 experts keep 100%")
    assert plt.gcf().axes[0].get_title().endswith("every expert serves every token")
