"""A bar is the error of that layer's matrix, and whatever is chosen draws another picture."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite import Qwen2, Qwen2Config
from qwen2lite.learn.widgets.quantize import (
    KINDS,
    WHOLE_ROW,
    draw_layer_errors,
    errors_by_layer,
    explore_layer_errors,
    relative_error,
)


@pytest.fixture
def model():
    sizes = {"vocab_size": 30, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    torch.manual_seed(0)
    return Qwen2(Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2))


def test_errors_are_parts_of_the_weights_size():
    weight = torch.tensor([[0.0, 3.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert relative_error(weight, 1, WHOLE_ROW) == pytest.approx(1 / 5)
    assert relative_error(weight, 1, 2) == 0


def test_every_matrix_of_every_layer_is_measured(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:, 0] = 5
    errors = errors_by_layer(model, 4, 32)
    assert list(errors) == list(KINDS)
    assert all(len(layers) == 3 for layers in errors.values())
    giants = errors["up_proj"]
    assert giants[1] < giants[0], "a giant is most of the row's length, and itself exact"
    assert all(0.05 < error < 0.12 for error in errors["q_proj"])


def test_bars_are_the_errors_in_per_cent(model):
    errors = errors_by_layer(model, 3, 32)["q_proj"]
    draw_layer_errors(model, "q_proj", 3, 32)
    panel = plt.gca()
    assert [bar.get_height() / 100 for bar in panel.patches] == pytest.approx(errors)
    worst = errors.index(max(errors))
    assert panel.get_title().startswith("3 bits, groups of 32: q_proj is off by")
    assert panel.get_title().endswith(f"{100 * max(errors):.1f} %, most in layer {worst}")


def test_choosing_draws_another_picture(model, monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **controls: shown.append((draw, controls))
    )
    explore_layer_errors(model)
    [(draw, controls)] = shown
    assert [size for _, size in controls["group"].options] == [16, 32, WHOLE_ROW]
    draw(**{name: control.value for name, control in controls.items()})
    draw("k_proj", 6, WHOLE_ROW)
    titles = [plt.figure(number).axes[0].get_title() for number in plt.get_fignums()]
    assert titles[0].startswith("4 bits, groups of 32: down_proj")
    assert titles[1].startswith("6 bits, one scale a row: k_proj")
