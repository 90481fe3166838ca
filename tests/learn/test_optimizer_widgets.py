"""Walks are those of the real optimizers, pictures show them, and the sliders reach every choice."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from qwen2lite.learn.widgets import optimizer as widgets
from qwen2lite.learn.widgets.optimizer import best_rate, draw_schedules, draw_walks, valley, walk
from qwen2lite.train.schedule import cooldown, cosine, linear


def walk_of(optimizer_of, steps, degrees=0.0):
    """The same walk with an optimizer of PyTorch's, and gradients from autograd."""
    place = nn.Parameter(walk("SGD", 0.0, degrees=degrees, steps=1)[0].clone())
    optimizer, visited = optimizer_of([place]), [place.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        valley(place, degrees).backward()
        optimizer.step()
        visited.append(place.detach().clone())
    return torch.stack(visited)


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_walks_are_pytorchs(degrees):
    sgd = walk_of(lambda p: torch.optim.SGD(p, lr=0.03), 12, degrees)
    adam = walk_of(lambda p: torch.optim.Adam(p, lr=0.2, betas=(0.8, 0.95)), 12, degrees)
    torch.testing.assert_close(walk("SGD", 0.03, degrees=degrees, steps=12), sgd)
    torch.testing.assert_close(walk("Adam", 0.2, 0.8, degrees, steps=12), adam)


def test_momentum_by_hand():
    # The slopes at (10, 1) are 10 and 50; a tenth of them goes into the mean.
    first, second = walk("momentum", 0.1, beta=0.9, steps=2)[1:]
    assert first.tolist() == pytest.approx([10 - 0.1 * 1, 1 - 0.1 * 5])
    assert second[0].item() == pytest.approx(9.9 - 0.1 * (0.9 * 1 + 0.1 * 9.9))
    torch.testing.assert_close(walk("momentum", 0.03, beta=0.0), walk("SGD", 0.03, beta=0.9))


def test_a_turned_valley_is_the_same_valley():
    corner = torch.tensor([3.0, 2.0]).double()
    assert valley(corner).item() == pytest.approx((9 + 50 * 4) / 2)
    assert valley(torch.tensor([-2.0, 3.0]).double(), 90).item() == pytest.approx(104.5)
    straight, turned = walk("SGD", 0.03), walk("SGD", 0.03, degrees=40)
    torch.testing.assert_close(valley(straight), valley(turned, 40))


def test_the_best_rate_is_the_best():
    assert best_rate("SGD", [0.001, 0.03, 0.041]) == 0.03
    assert best_rate("momentum", [0.001, 0.06, 0.041]) == 0.06


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of SGD, momentum, Adam; got 'adam'"):
        walk("adam", 0.1)


def test_a_picture_shows_the_walk_and_how_it_ended():
    good, bad = walk("SGD", 0.03), walk("SGD", 0.5, steps=400)
    draw_walks({"good": good, "bad": bad})
    first, second = plt.gcf().axes
    assert first.get_title() == f"good: loss 75 → {valley(good[-1]):.2g} in 40 steps"
    assert second.get_title() == "bad: runs away in 400 steps"
    drawn = first.lines[0].get_xydata()
    torch.testing.assert_close(torch.tensor(drawn), good)
    plt.gcf().canvas.draw()  # a walk that left the page can still be drawn


def test_schedules_are_the_packages():
    draw_schedules(steps=50, warmup_steps=5, floor=0.2, cooldown_steps=10)
    given = (50, 5, 0.2)
    wanted = {
        "cosine": [cosine(step, *given) for step in range(50)],
        "linear": [linear(step, *given) for step in range(50)],
        "cooldown": [cooldown(step, *given, 10) for step in range(50)],
    }
    panel = plt.gcf().axes[0]
    for line, (name, factors) in zip(panel.lines[:3], wanted.items(), strict=True):
        assert line.get_ydata() == pytest.approx(factors)
        assert line.get_label() == f"{name}, mean {sum(factors) / 50:.2f}"
    assert panel.get_title() == "All climb in 5 updates, and end at 20% of the peak"


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: calls.append((draw, sliders))
    )
    return calls


def test_the_sliders_of_the_walk_reach_every_corner(shown):
    widgets.explore_walk()
    [(draw, sliders)] = shown
    assert {name: s.value for name, s in sliders.items()} == {
        "method": "SGD", "lr": pytest.approx(0.04), "beta": 0.9, "degrees": 0,
    }  # fmt: skip
    fast = sliders["lr"].base ** sliders["lr"].max
    for method in sliders["method"].options:
        for beta in (sliders["beta"].min, sliders["beta"].max):
            draw(method=method, lr=fast, beta=beta, degrees=sliders["degrees"].max)
            plt.gcf().canvas.draw()
    draw(method="momentum", lr=0.05, beta=0.9, degrees=0)
    assert plt.gcf().axes[0].get_title().startswith("momentum, lr 0.05, β 0.9: loss 75 → ")


def test_the_sliders_of_the_schedule_reach_every_corner(shown):
    widgets.explore_schedules()
    [(draw, sliders)] = shown
    ends = {name: (s.min, s.max) for name, s in sliders.items()}
    assert ends == {"warmup": (0, 500), "cooldown": (0, 500), "floor": (0.0, 1.0)}
    for place in (0, 1):
        draw(**{name: both[place] for name, both in ends.items()})
    draw(warmup=100, cooldown=200, floor=0.1)
    assert "end at 10% of the peak" in plt.gcf().axes[0].get_title()
