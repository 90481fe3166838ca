"""The block shows what rounding does, and the sliders reach what they promise."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite.learn.widgets import weights


def test_rounding_by_hand():
    block = torch.zeros(64)
    block[:3] = torch.tensor([-4.0, 3.0, 1.0])
    back = weights.round_in_blocks(block, 2)
    assert back[:3].tolist() == [-4.0, 4.0, 0.0] and not back[3:].any()
    assert weights.loss_of(block, 2) == pytest.approx((2 / 26) ** 0.5)
    assert weights.round_in_blocks(block[:4], 2, block=2).tolist() == [-4.0, 4.0, 1.0, 0.0]


def test_the_block_is_spread_like_normal_numbers_and_has_one_larger():
    calm, wild = weights.some_block(1.0), weights.some_block(10.0)
    assert calm.mean().abs() < 1e-5 and 0.9 < calm.std() < 1.05
    changed = (calm != wild).nonzero().flatten().tolist()
    assert len(changed) == 1 and wild[changed[0]] == 10 * calm.max()


def test_a_large_number_costs_its_neighbours():
    assert weights.rest_loss(1.0, 4) == pytest.approx(weights.loss_of(weights.some_block(1.0), 4))
    losses = [weights.rest_loss(outlier, 6) for outlier in (1.0, 2.0, 5.0, 20.0)]
    assert losses == sorted(losses) and losses[-1] > 5 * losses[0]


def test_the_picture_holds_the_weights_and_where_they_go():
    weights.draw_block(bits=3, outlier=4.0)
    left, right = plt.gcf().axes
    drawn = {line.get_label(): torch.as_tensor(line.get_ydata()) for line in left.get_lines()}
    block = weights.some_block(4.0)
    assert torch.equal(drawn["weight"], block)
    assert torch.equal(drawn["comes back as"], weights.round_in_blocks(block, 3))
    zeros = int((weights.round_in_blocks(block, 3) == 0).sum())
    assert left.get_title() == f"3 bits: {zeros} of 32 weights become 0"
    assert [len(line.get_ydata()) for line in right.get_lines()] == [7, 7]
    assert f"{100 * weights.rest_loss(4.0, 3):.2g} %" in right.get_title()


def test_the_sliders_start_with_the_picture_above_them(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    weights.explore_block()
    [(draw, sliders)] = shown
    assert draw is weights.draw_block
    assert {name: s.value for name, s in sliders.items()} == {"bits": 4, "outlier": 1.0}
    assert (sliders["bits"].min, sliders["bits"].max) == (2, 8)
