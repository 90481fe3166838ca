"""Explorers of optimizers: a walk down a narrow valley, and the learning rate over training."""

import math
from collections.abc import Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
from torch import nn

from qwen2lite.train.optim import AdamW
from qwen2lite.train.schedule import cooldown, cosine, linear

STEEPNESS = (1.0, 50.0)
"""How fast the slope grows along the valley and across it."""
START = (10.0, 1.0)
METHODS = ("SGD", "momentum", "Adam")


def valley(places_X2: torch.Tensor, degrees: float = 0.0) -> torch.Tensor:
    r"""The loss at some places: half of $x^2 + 50 y^2$, with x along the valley and y across it.

    Args:
        places_X2: coordinates in the plane, the last dimension has two.
        degrees: by which the valley is turned.
    """
    return 0.5 * (places_X2 @ _curvature(degrees) * places_X2).sum(-1)


def _curvature(degrees: float) -> torch.Tensor:
    turn = _turn(degrees)
    return turn @ torch.diag(torch.tensor(STEEPNESS, dtype=torch.double)) @ turn.T


def _turn(degrees: float) -> torch.Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.double)


def walk(
    method: str, lr: float, beta: float = 0.9, degrees: float = 0.0, steps: int = 40
) -> torch.Tensor:
    """The places that an optimizer visits in the valley, the start first: [steps + 1, 2].

    Args:
        method: one of `METHODS`.
        lr: learning rate.
        beta: what the mean of gradients keeps at each step; SGD has no use for it.
        degrees: by which the valley is turned.
        steps: how many.

    Raises:
        ValueError: no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    place = nn.Parameter(_turn(degrees) @ torch.tensor(START, dtype=torch.double))
    adam = AdamW([place], lr, (beta, 0.95), weight_decay=0.0)
    kept = beta if method == "momentum" else 0.0
    mean, visited = torch.zeros(2, dtype=torch.double), [place.detach().clone()]
    for _ in range(steps):
        place.grad = _curvature(degrees) @ place.detach()
        if method == "Adam":
            adam.step()
        else:
            mean = kept * mean + (1 - kept) * place.grad
            place.data -= lr * mean
        visited.append(place.detach().clone())
    return torch.stack(visited)


def best_rate(method: str, rates: Sequence[float], degrees: float = 0.0) -> float:
    """The learning rate of those given with which a walk ends lowest."""
    return min(rates, key=lambda lr: float(valley(walk(method, lr, degrees=degrees)[-1], degrees)))


def draw_walks(walks: dict[str, torch.Tensor], degrees: float = 0.0) -> None:
    """Walks below one another, each on the map of the valley: one line a height.

    Args:
        walks: places visited, by the title of the picture.
        degrees: by which the valley is turned.
    """
    height = 1.7 if degrees == 0 else 4.6
    _, panels = plt.subplots(
        len(walks), 1, figsize=(8, height * len(walks) + 0.5), squeeze=False, layout="constrained"
    )
    for panel, (title, visited) in zip(panels[:, 0], walks.items(), strict=True):
        _draw_walk(panel, visited, degrees)
        end, start = float(valley(visited[-1], degrees)), float(valley(visited[0], degrees))
        fate = f"loss {start:.0f} → {end:.2g}" if end < start else "runs away"
        panel.set_title(f"{title}: {fate} in {len(visited) - 1} steps", fontsize=10)
        panel.set_ylabel("weight 2")
    panels[-1, 0].set_xlabel("weight 1")
    plt.show()


def _draw_walk(panel: Any, visited: torch.Tensor, degrees: float) -> None:
    sin = math.sin(math.radians(degrees))
    x, y = torch.linspace(-4, 12, 160), torch.linspace(-1.7 - 4 * sin, 1.7 + 10 * sin, 120)
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).double()
    heights = [0.1, 0.5, 2, 8, 25, 60, 120]
    panel.contour(x, y, valley(places, degrees), levels=heights, colors="0.75", linewidths=0.8)
    panel.plot(*visited.T, ".-", color="C0", lw=1, ms=5)
    panel.plot(*visited[0], "o", color="C1", label="start")
    panel.plot(0, 0, "*", color="C2", ms=11, label="minimum")
    panel.set(xlim=(float(x[0]), float(x[-1])), ylim=(float(y[0]), float(y[-1])), aspect="equal")
    panel.legend(loc="lower right", fontsize=8)


def explore_walk() -> None:
    """Walk down the valley: choose the optimizer, its learning rate, β and the valley's direction."""

    def draw(method: str, lr: float, beta: float, degrees: float) -> None:
        name = f"{method}, lr {lr:.3g}" + (f", β {beta:g}" if method != "SGD" else "")
        draw_walks({name: walk(method, lr, beta, degrees)}, degrees)

    ipywidgets.interact(
        draw,
        method=ipywidgets.Dropdown(options=METHODS, value="SGD", description="optimizer"),
        lr=ipywidgets.FloatLogSlider(
            value=0.04, min=-3, max=0.5, step=0.05, description="lr", continuous_update=False
        ),
        beta=ipywidgets.FloatSlider(
            value=0.9, max=0.99, step=0.01, description="β, not SGD", continuous_update=False
        ),
        degrees=ipywidgets.IntSlider(
            value=0, max=90, step=15, description="turned by", continuous_update=False
        ),
    )


def draw_schedules(
    steps: int = 1000, warmup_steps: int = 100, floor: float = 0.1, cooldown_steps: int = 200
) -> None:
    """The three schedules in one picture. The mean of each says how far a run can travel in all.

    Args:
        steps: updates in all.
        warmup_steps: updates until the peak.
        floor: factor of the last update.
        cooldown_steps: in which "cooldown" descends.
    """
    given = (steps, warmup_steps, floor)
    curves = {
        "cosine": [cosine(step, *given) for step in range(steps)],
        "linear": [linear(step, *given) for step in range(steps)],
        "cooldown": [cooldown(step, *given, cooldown_steps) for step in range(steps)],
    }
    plt.figure(figsize=(7.5, 3))
    for name, factors in curves.items():
        plt.plot(range(1, steps + 1), factors, label=f"{name}, mean {sum(factors) / steps:.2f}")
    plt.axvline(warmup_steps, color="0.7", ls=":", label="end of the warm-up")
    plt.xlabel("update")
    plt.ylabel("share of the peak rate")
    plt.ylim(0, 1.05)
    end = (
        f", and end at {floor:.0%} of the peak" if cooldown_steps else ", one stays on its plateau"
    )
    plt.title(f"All climb in {warmup_steps} updates{end}")
    plt.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    plt.tight_layout()
    plt.show()


def explore_schedules() -> None:
    """Sliders over warm-up, cooldown and floor of a run of 1,000 updates."""

    def draw(warmup: int, cooldown: int, floor: float) -> None:
        draw_schedules(1000, warmup, floor, cooldown)

    warmup, last = (
        ipywidgets.IntSlider(
            value=value, max=500, step=25, description=name, continuous_update=False
        )
        for value, name in ((100, "warm-up"), (200, "cooldown"))
    )
    floor = ipywidgets.FloatSlider(
        value=0.1, max=1, step=0.05, description="floor", continuous_update=False
    )
    ipywidgets.interact(draw, warmup=warmup, cooldown=last, floor=floor)
