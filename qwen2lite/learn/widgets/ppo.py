"""What PPO makes of an answer token by token, where its loss goes flat, and how a run went, drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.align.ppo import Measured
from qwen2lite.align.ppo_loss import advantages, policy_loss
from qwen2lite.learn.widgets.colours import BLUE, GREEN, GREY, ORANGE


@dataclass(frozen=True)
class Judged:
    """One answer, and what was thought of each of its tokens."""

    tokens: Sequence[str]
    """As text, the end among them."""
    rewards: Sequence[float]
    """From `token_rewards`."""
    values: Sequence[float]
    """What the value model expected before each."""

    def ahead(self, decay: float) -> list[float]:
        """By how much what followed each token was better than expected: its advantage."""
        rewards_BT, values_BT = (torch.tensor([row]) for row in (self.rewards, self.values))
        said_BT = torch.ones_like(rewards_BT).bool()
        return list(advantages(rewards_BT, values_BT, said_BT, decay)[0].tolist())


def draw_judged(judged: Judged, decay: float = 0.95) -> None:
    """Three rows of bars: what each token earned, what was expected before it, its advantage.

    Args:
        judged: an answer.
        decay: λ, see `advantages`.
    """
    ahead = judged.ahead(decay)
    figure, panels = plt.subplots(
        3, figsize=(9, 4.6), sharex=True, sharey=True, layout="constrained"
    )
    bars = {"reward": judged.rewards, "expected\nbefore": judged.values, "advantage": ahead}
    for panel, (label, heights) in zip(panels, bars.items(), strict=True):
        colours = [GREEN if height >= 0 else ORANGE for height in heights]
        panel.bar(range(len(heights)), heights, color=BLUE if "\n" in label else colours)
        panel.axhline(0, color=GREY, linewidth=0.8)
        panel.set_ylabel(label)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(min(low, -1), max(high, 1))  # the same from answer to answer, mostly
    names = [token.replace(" ", "␣") for token in judged.tokens]
    panels[-1].set_xticks(range(len(names)), names)
    panels[-1].set_xlabel("token; all heights in points of the score")
    lowest = min(range(len(ahead)), key=ahead.__getitem__)
    blame = f"{names[lowest]!r} is blamed most" if ahead[lowest] < 0 else "no token is blamed"
    figure.suptitle(f"With λ = {decay:g}, {blame}")
    plt.show()


def explore_judged(judged: Mapping[str, Judged]) -> None:
    """Choose λ and one of several answers by name: the picture of `draw_judged`."""

    def draw(decay: float, answer: str) -> None:
        draw_judged(judged[answer], decay)

    slider = ipywidgets.SelectionSlider(
        options=[0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0], value=0.95, description="λ"
    )
    wide = ipywidgets.Layout(width="44em")
    menu = ipywidgets.Dropdown(options=list(judged), layout=wide)
    ipywidgets.interact(draw, decay=slider, answer=menu)


def draw_clip(clip: float = 0.2, advantage: float = 1.0) -> None:
    """The loss of a good and of a bad token over how much likelier it is now; grey where it is flat.

    Args:
        clip: see `policy_loss`.
        advantage: of the good token, above 0; the bad one's is as far below.
    """
    ratio = torch.linspace(0.02, 2.5, 249, dtype=torch.double)
    _, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    zero, edge = ratio.new_zeros(1), (1 + clip, 1 - clip)
    looks = ((advantage, GREEN, edge[0], 2.5), (-advantage, ORANGE, 0.0, edge[1]))
    for panel, (ahead, colour, first, last) in zip(panels, looks, strict=True):
        told = torch.full_like(zero, ahead)
        losses = [policy_loss(one.log()[None], zero, told, clip).item() for one in ratio]
        panel.axvspan(first, last, color=GREY, alpha=0.2, label="no gradient")
        panel.plot(ratio, losses, color=colour)
        panel.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
        panel.set_xlim(0, 2.5)
        panel.set_xlabel("ρ: times as likely as when it was written")
        panel.set_title(
            f"Better than expected: flat from {first:g}"
            if ahead > 0
            else f"Worse than expected: flat below {last:g}"
        )
        panel.legend(loc="upper left" if ahead > 0 else "lower right")
    panels[0].set_ylabel("loss of the token")
    most = max(2.0, advantage)
    panels[0].set_ylim(-2 * most, 2.6 * most)  # the same for all small advantages: they compare
    plt.show()


def explore_clip() -> None:
    """Choose ε and how good the token was: the picture of `draw_clip`."""
    ipywidgets.interact(
        draw_clip,
        clip=ipywidgets.FloatSlider(
            value=0.2, min=0.05, max=0.9, step=0.05, description="clip", continuous_update=False
        ),
        advantage=ipywidgets.FloatSlider(
            value=1.0, min=0.25, max=2.0, step=0.25, continuous_update=False
        ),
    )


def draw_run(
    measured: Sequence[Measured], right: Mapping[int, float], value_only: int, title: str
) -> None:
    """A run in three panels; shaded are the steps in which only the value model learns.

    Args:
        measured: of each step.
        right: share of right answers, from 0 to 1, after some numbers of steps.
        value_only: see `PPOSettings`.
        title: the finding.
    """
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    scores, distances, foreseen = panels
    steps = range(1, len(measured) + 1)
    scores.plot(steps, [m.score for m in measured], color=BLUE, label="score, asked")
    scores.plot(list(right), list(right.values()), "s-", color=ORANGE, label="right, others")
    scores.set(ylabel="share of the answers", ylim=(0, 1.05))
    scores.legend(loc="lower right")
    distances.plot(steps, [m.kl for m in measured], color=BLUE)
    distances.set_ylabel("KL, nats an answer")
    foreseen.plot(steps, [m.expected for m in measured], color=BLUE)
    foreseen.axhline(0, color=GREY, linewidth=0.8)
    foreseen.set(ylabel="share of variance foreseen", ylim=(-0.6, 1))
    for panel in panels:
        panel.axvspan(0, value_only, color=GREY, alpha=0.2)
        panel.set(xlabel="step", xlim=(0, len(measured)))
    figure.suptitle(title)
    plt.show()
