"""Explorer of decoding: which tokens each step reads, with and without a cache."""

from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

NOT_YET, FROM_THE_CACHE, READ = range(3)
_COLOURS = ["0.93", "#a6cee3", "#1f4e79"]
_NAMES = ["not there yet", "from the cache", "read in this step"]


def reading_steps(prompt: int, new: int, cached: bool) -> torch.Tensor:
    """A row for each new token: what the step that chooses it does with every position.

    Args:
        prompt: tokens of the prompt, at least 1.
        new: tokens to write, at least 1.
        cached: whether there is a cache.

    Returns:
        NOT_YET, FROM_THE_CACHE or READ, shape [new, prompt + new - 1]: the last new token is chosen
        and never read.
    """
    steps = torch.arange(new)[:, None]
    positions = torch.arange(prompt + new - 1)
    there = positions < prompt + steps
    known = (positions < prompt + steps - 1) & (steps > 0) & cached
    return torch.where(there, torch.where(known, FROM_THE_CACHE, READ), NOT_YET)


def draw_reading(prompt: int = 4, new: int = 8, step: int | None = None) -> None:
    """Both ways side by side: a row a step, a column a position.

    Args:
        prompt: tokens of the prompt.
        new: tokens to write.
        step: shows only so many steps; None shows all.
    """
    shown = new if step is None else min(step, new)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    for panel, cached in zip(panels, (False, True), strict=True):
        table = reading_steps(prompt, new, cached)
        table[shown:] = NOT_YET
        count = int((table == READ).sum())
        how = "With a cache" if cached else "Without"
        panel.imshow(
            table.numpy(),
            cmap=ListedColormap(_COLOURS),
            vmin=0,
            vmax=2,
            aspect="auto",
            origin="upper",
        )
        panel.set_title(f"{how}: {count} {'tokens' if count > 1 else 'token'} read")
        _rule(panel, new, prompt + new - 1)
    panels[0].set_ylabel("step")
    handles = [Patch(color=c, label=n) for c, n in zip(_COLOURS, _NAMES, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    plt.show()


def _rule(panel: Any, rows: int, columns: int) -> None:
    """White lines between the cells, and ticks that stay readable when there are many."""
    panel.set_xticks(torch.arange(columns + 1).numpy() - 0.5, minor=True)
    panel.set_yticks(torch.arange(rows + 1).numpy() - 0.5, minor=True)
    panel.grid(which="minor", color="white", lw=1)
    panel.tick_params(which="minor", length=0)
    every_row, every_column = (1 + count // 12 for count in (rows, columns))
    panel.set_yticks(range(0, rows, every_row), range(1, rows + 1, every_row))
    panel.set_xticks(range(0, columns, every_column))
    panel.set_xlabel("position in the text")


def explore_reading() -> None:
    """Sliders over prompt, new tokens and step: the cache fills up, and the work without it grows."""
    sliders = {
        "prompt": ipywidgets.IntSlider(value=4, min=1, max=24),
        "new": ipywidgets.IntSlider(value=8, min=1, max=24),
        "step": ipywidgets.IntSlider(value=8, min=1, max=24),
    }
    for name, slider in sliders.items():
        slider.description, slider.continuous_update = name, False
    ipywidgets.interact(draw_reading, **sliders)
