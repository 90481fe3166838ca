"""Explorer of filters: what is left of a crawl, kind by kind, before and after each of them."""

from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np


def draw_left(
    kinds: Sequence[str], dropped: Mapping[str, np.ndarray], choices: Sequence[Sequence[str]]
) -> None:
    """Bars for each choice of filters: how many documents of each kind there were, and are left.

    Args:
        kinds: of each document, "" for a sound one, else the name of its damage.
        dropped: for each filter, whether it drops each document.
        choices: the filters of each picture, side by side.
    """
    names = [*sorted(set(kinds) - {""}, reverse=True), ""]
    figure = plt.figure(figsize=(3.2 * len(choices) + 1.4, 3), layout="constrained")
    panels = figure.subplots(1, len(choices), sharey=True, squeeze=False)
    for panel, chosen in zip(panels[0], choices, strict=True):
        left = still_there(dropped, chosen, len(kinds))
        for bars, counted in (("0.85", np.ones(len(kinds), dtype=bool)), ("tab:blue", left)):
            counts = [sum(np.equal(kinds, name) & counted) for name in names]
            panel.barh([name or "sound" for name in names], counts, color=bars)
        panel.set_title(f"{' + '.join(chosen) or 'no filter'}\n{summary(kinds, left)}", fontsize=9)
        panel.set_xlabel("documents: before (grey), left (blue)", fontsize=9)
    plt.show()


def still_there(
    dropped: Mapping[str, np.ndarray], chosen: Sequence[str], documents: int
) -> np.ndarray:
    """Whether each document passes all chosen filters."""
    gone = [dropped[name] for name in chosen]
    return ~np.any(gone, axis=0) if gone else np.ones(documents, dtype=bool)


def summary(kinds: Sequence[str], left: np.ndarray) -> str:
    """The share of sound documents that is left, and the share of damaged ones."""
    sound = np.equal(kinds, "")
    return f"left: {left[sound].mean():.0%} of the sound, {left[~sound].mean():.0%} of the damaged"


def explore_filters(kinds: Sequence[str], dropped: Mapping[str, np.ndarray]) -> None:
    """A box to tick for each filter: what is left after those that are ticked.

    Args:
        kinds: see `draw_left`.
        dropped: see `draw_left`.
    """

    def draw(**ticked: bool) -> None:
        draw_left(kinds, dropped, [[name for name in dropped if ticked[name]]])

    boxes = {name: ipywidgets.Checkbox(value=False, description=name) for name in dropped}
    ipywidgets.interact(draw, **boxes)
