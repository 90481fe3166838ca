"""Explorer of the experts' load over training: who was sent how many tokens, run by run."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import ipywidgets
import matplotlib.pyplot as plt
import torch

WINDOW = 20
"""Steps over which a load is averaged: a single batch is uneven by chance."""


def draw_loads(
    runs: Mapping[str, torch.Tensor], shown: Sequence[str], layer: int, title: str = ""
) -> None:
    """Heat maps of some runs side by side: a column a step, a row an expert, the busiest at the top.

    Args:
        runs: by name; of each step and layer, the share of the tokens that chose each expert.
        shown: names of the runs in the picture.
        layer: counted from 0.
        title: what the picture shows.
    """
    size = 3.2 if len(shown) > 1 else 5.0
    figure, panels = plt.subplots(
        1, len(shown), figsize=(size * len(shown) + 0.6, 3.6), squeeze=False, layout="constrained"
    )
    for panel, name in zip(panels[0], shown, strict=True):
        loads = smooth(runs[name][:, layer])
        order = loads[-1].argsort(descending=True)
        top = min(1.0, 4 * float(runs[name][0].sum(-1).mean()) / len(order))
        extent = (WINDOW, len(runs[name]), len(order) - 0.5, -0.5)
        look = {"cmap": "Blues", "vmin": 0, "vmax": top, "interpolation": "nearest"}
        picture = panel.imshow(loads[:, order].T.numpy(), aspect="auto", extent=extent, **look)
        share = busiest_share(runs[name][:, layer])[-1]
        panel.set_title(f"{name}\nbusiest quarter: {share:.0%} at the end", fontsize=9)
        panel.set_xlabel("step")
    panels[0, 0].set_ylabel(f"experts of layer {layer}\n(busiest at the end on top)")
    figure.colorbar(picture, ax=panels[0], label="share of the tokens", extend="max")
    if title:
        figure.suptitle(title, fontsize=11)
    plt.show()


def draw_shares(runs: Mapping[str, torch.Tensor], layer: int, title: str) -> None:
    """Lines: the share of all choices that goes to the busiest quarter of the experts.

    Args:
        runs: see `draw_loads`.
        layer: counted from 0.
        title: what the picture shows.
    """
    plt.figure(figsize=(7.5, 3.6), layout="constrained")
    for mark, (name, loads) in zip(cycle("os^vD*"), runs.items(), strict=False):
        shares = busiest_share(loads[:, layer])
        steps = range(WINDOW, len(loads) + 1)
        plt.plot(steps, shares, marker=mark, markevery=10, ms=4, label=name)
    plt.axhline(0.25, color="gray", ls=":", label="all alike")
    plt.xlabel(f"step (each point: the {WINDOW} steps before it)")
    plt.ylabel("busiest quarter's share of the tokens")
    plt.ylim(0, 1)
    plt.title(title, fontsize=11)
    plt.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    plt.show()


def smooth(loads: torch.Tensor) -> torch.Tensor:
    """Means of `WINDOW` steps, from the first whole window on."""
    return loads.float().unfold(0, WINDOW, 1).mean(-1)


def busiest_share(loads: torch.Tensor) -> torch.Tensor:
    """Share of the choices that the busiest quarter of the experts gets, for each window.

    Args:
        loads: a row a step, a column an expert.
    """
    ranked = smooth(loads).sort(-1, descending=True).values
    return ranked[:, : loads.shape[1] // 4].sum(-1) / ranked.sum(-1)


def explore_loads(runs: Mapping[str, torch.Tensor]) -> None:
    """Choose a run and a layer: its load over training.

    Args:
        runs: see `draw_loads`.
    """

    def draw(run: str, layer: int) -> None:
        draw_loads(runs, [run], layer)

    layers = next(iter(runs.values())).shape[1]
    ipywidgets.interact(
        draw,
        run=ipywidgets.Dropdown(options=list(runs), description="run"),
        layer=ipywidgets.IntSlider(max=layers - 1, continuous_update=False),
    )
