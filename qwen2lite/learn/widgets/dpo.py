"""What direct preference optimisation asks for, and what a run of it makes of its pairs, drawn."""

import math
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.align.dpo import Measured, dpo_loss
from qwen2lite.learn.widgets.colours import BLUE, GREEN, GREY, ORANGE, PURPLE


def draw_loss(beta: float = 0.1) -> None:
    """The loss of one pair over its margin, and how hard it pulls there.

    The dotted line is the margin where it pulls half as hard as at first, at ln 3 / β: there
    σ(-β · margin) is 1/4, and at 0 it is 1/2.

    Args:
        beta: see `dpo_loss`.
    """
    margin = torch.linspace(-30, 60, 361, dtype=torch.double, requires_grad=True)
    losses = torch.stack([dpo_loss(one[None], beta) for one in margin])
    [slope] = torch.autograd.grad(losses.sum(), margin)
    half = math.log(3) / beta
    figure, panels = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    lines = ((losses.tolist(), BLUE, "loss"), ((-slope).tolist(), ORANGE, "pull, −slope, per nat"))
    for panel, (heights, colour, label) in zip(panels, lines, strict=True):
        panel.plot(margin.tolist(), heights, color=colour)
        panel.axvline(0, color=GREY, linewidth=0.8)
        if half < 60:
            panel.axvline(half, color=GREY, linestyle=":")
        panel.set_xlabel("margin, nats")
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.set_xlim(-30, 60)
    figure.suptitle(
        f"With β = {beta:g} a pair pulls half as hard as at first when its margin is {half:.1f} nats"
    )
    plt.show()


def explore_loss() -> None:
    """Choose beta: the picture of `draw_loss`."""
    ipywidgets.interact(
        draw_loss,
        beta=ipywidgets.SelectionSlider(
            options=[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], value=0.1, description="beta"
        ),
    )


def draw_run(
    steps: Sequence[int], measured: Sequence[Measured], right: Sequence[float], title: str
) -> None:
    """A run in two panels: what is won, and how much likelier both answers have become.

    Args:
        steps: when it was measured.
        measured: of pairs that aren't learnt from, at each of these steps.
        right: share of right answers, from 0 to 1, at the same steps.
        title: the finding.
    """
    figure, (shares, gains) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    # At the first step all margins are 0, and nothing is won or lost.
    won = [100 * found.accuracy for found in measured]
    shares.plot(steps[1:], won[1:], "o-", color=BLUE, label="pairs won")
    shares.plot(steps, [100 * share for share in right], "s-", color=ORANGE, label="answers right")
    shares.set_ylim(0, 105)
    shares.set_ylabel("of held-out people, %")
    gains.axhline(0, color=GREY, linewidth=0.8)
    gains.plot(steps, [m.chosen for m in measured], "o-", color=BLUE, label="chosen")
    gains.plot(steps, [m.rejected for m in measured], "s-", color=ORANGE, label="rejected")
    gains.set_ylabel("gain in ln p, nats")
    for panel in (shares, gains):
        panel.set_xlabel("step")
        panel.legend()
    figure.suptitle(title)
    plt.show()


def draw_kinds(counts: Mapping[str, Mapping[str, int]], title: str) -> None:
    """What each of several models answers, a bar a model, in shares of its answers.

    Args:
        counts: of each model by name, how many answers are of which kind; all have the same kinds.
        title: the finding.
    """
    names = list(counts)
    figure, panel = plt.subplots(figsize=(9, 0.6 * len(names) + 1.5), layout="constrained")
    left = [0.0] * len(names)
    colours = (GREEN, ORANGE, BLUE, PURPLE, GREY)
    for kind, colour in zip(counts[names[0]], colours, strict=False):
        shares = [100 * counts[name][kind] / sum(counts[name].values()) for name in names]
        bars = panel.barh(names, shares, left=left, color=colour, label=kind)
        wide_enough = [f"{share:.0f}" if share >= 4 else "" for share in shares]
        panel.bar_label(bars, wide_enough, label_type="center", color="white")
        left = [before + share for before, share in zip(left, shares, strict=True)]
    panel.invert_yaxis()
    panel.set_xlabel("answers, %")
    panel.set_xlim(0, 100)
    panel.set_title(title)
    figure.legend(loc="outside lower center", ncols=4)
    plt.show()
