"""The heat map shows the strongest neurons of the layer that was asked for."""

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.learn.widgets.swiglu import concentration, draw_activations, explore_activations

TOKENS = ["The", " cat", "\n"]


def some_activations():
    """Two layers, three tokens, twenty neurons, of which 7, 3 and 11 are the loudest of layer 1."""
    h_LTF = torch.full((2, 3, 20), 0.01)
    for neuron, token, loudness in ((7, 0, -9.0), (3, 2, 4.0), (11, 1, 2.0)):
        h_LTF[1, token, neuron] = loudness
    return h_LTF


def test_the_concentration_by_hand():
    h_TF = torch.zeros(2, 20)
    h_TF[:, 5] = torch.tensor([-3.0, 0.0])
    h_TF[:, 6] = torch.tensor([0.0, 2.0])
    h_TF[1, :4] = 1.0  # squares 4 and 1, 1, 1, 1: two of twenty hold 5 of 8
    said = concentration(h_TF)
    assert said == "at each token a tenth of 20 neurons holds 81% of the squares"


def test_the_rows_are_the_strongest_neurons():
    h_LTF = some_activations()
    draw_activations(h_LTF, TOKENS, layer=1, rows=3)
    panel = plt.gcf().axes[0]
    drawn = torch.as_tensor(panel.images[0].get_array())
    assert [label.get_text() for label in panel.get_yticklabels()] == ["7", "3", "11"]
    assert torch.equal(drawn.float(), h_LTF[1][:, [7, 3, 11]].T)
    assert [label.get_text() for label in panel.get_xticklabels()] == ["The", "cat", "␣"]
    assert panel.get_title().startswith("layer 1: at each token a tenth of 20 neurons holds")
    assert panel.images[0].get_clim() == (-9.0, 9.0)


def test_the_sliders_reach_every_layer(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_activations(some_activations(), TOKENS, start=1)
    [(draw, sliders)] = shown
    assert (sliders["layer"].min, sliders["layer"].max, sliders["layer"].value) == (0, 1, 1)
    draw(layer=1, rows=4)
    assert len(plt.gcf().axes[0].get_yticklabels()) == 4
    draw(layer=0, rows=24)  # more than there are
    assert len(plt.gcf().axes[0].get_yticklabels()) == 20
