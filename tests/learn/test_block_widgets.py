"""The lens shows the likeliest word in every place, and the sliders reach each of them."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite.learn.widgets.block import draw_lens, explore_lens, finding, likeliest, readable

TOKENS = ["The", " end"]
VOCABULARY = ["cat", " $5", "\n", "猫", "a very long word"]


def some_logits():
    """Three rows, two tokens, five words; at the last token 4, then 0 and 0 are the likeliest."""
    logits_LTV = torch.zeros(3, 2, 5)
    for row, (first, last) in enumerate([(1, 4), (2, 0), (3, 0)]):
        logits_LTV[row, 0, first] = 3.0
        logits_LTV[row, 1, last] = 2.0
    return logits_LTV


def test_the_likeliest_by_hand():
    words, probabilities = likeliest(some_logits(), VOCABULARY.__getitem__, count=2)
    assert [row[1][0] for row in words] == ["a very long word", "cat", "cat"]
    assert words[0][0][0] == " $5"
    assert probabilities.shape == (3, 2, 2)
    shares = torch.tensor([2.0, 0, 0, 0, 0]).softmax(0)
    assert torch.allclose(probabilities[1, 1], shares[:2])


def test_a_finding_by_hand():
    words, _ = likeliest(some_logits(), VOCABULARY.__getitem__, count=1)
    assert finding(words) == "“cat” is settled after 1 of 2 layers"
    assert finding([[["x"]], [["x"]]]) == "“x” is settled after 0 of 1 layers"
    assert finding([[["x"]], [["y"]], [["x"]]]) == "“x” is settled after 2 of 2 layers"


def test_words_are_made_readable():
    assert readable("—an") == "—an"
    shown = [readable(word) for word in VOCABULARY]
    assert shown == ["cat", r"\$5", "␣", "□", "a very l…"]


def test_the_grid_holds_the_words_and_the_bars_one_place():
    words, probabilities = likeliest(some_logits(), VOCABULARY.__getitem__, count=3)
    draw_lens(words, probabilities, TOKENS, layer=0, position=1)
    grid, bars = plt.gcf().axes[:2]
    written = {text.get_position(): text.get_text() for text in grid.texts}
    assert written[(1, 0)] == "a very l…" and written[(0, 2)] == "□" and len(written) == 6
    drawn = torch.as_tensor(grid.images[0].get_array())
    assert torch.allclose(drawn.float(), probabilities[..., 0])
    assert grid.get_title() == "“cat” is settled after 1 of 2 layers"
    assert grid.patches[0].get_xy() == (0.5, -0.5)
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(probabilities[0, 1].tolist())
    assert bars.get_title() == "after 0 layers, at “end”"


def test_the_sliders_reach_every_place(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_lens(*likeliest(some_logits(), VOCABULARY.__getitem__, count=2), TOKENS)
    [(draw, sliders)] = shown
    assert (sliders["layer"].min, sliders["layer"].max, sliders["layer"].value) == (0, 2, 2)
    assert (sliders["position"].min, sliders["position"].max) == (0, 1)
    draw(layer=1, position=0)
    assert plt.gcf().axes[0].patches[0].get_xy() == (-0.5, 0.5)
