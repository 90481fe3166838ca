"""Explorer of a loss curve: smoothed or not, on which axes, and beside what counting achieves."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt

Lines = Sequence[Mapping[str, Any]]


def draw_curve(
    lines: Lines,
    yardsticks: Mapping[str, float],
    title: str,
    smoothing: float = 0.0,
    log_steps: bool = False,
    log_loss: bool = False,
) -> None:
    """The losses of a run over its steps, and a level line for each yardstick.

    Args:
        lines: of a run's metrics.jsonl.
        yardsticks: losses to compare with, by what achieves them.
        title: of the figure.
        smoothing: what a running mean keeps at each line, 0 is the losses as they are.
        log_steps: let each decade of steps be as wide as the one before.
        log_loss: let equal ratios of losses be equally high.
    """
    plt.figure(figsize=(7.5, 3.6), layout="constrained")
    steps, losses = column(lines, "loss")
    plt.plot(steps, smoothed(losses, smoothing), color="tab:blue", label="training")
    plt.plot(*column(lines, "held_out_loss"), "o", color="tab:orange", label="held-out text")
    for name, loss in yardsticks.items():
        plt.axhline(loss, color="gray", linestyle=":", linewidth=1)
        plt.text(steps[-1], loss, f"{name} {loss:.2f}", va="bottom", ha="right", fontsize=8)
    plt.xscale("log" if log_steps else "linear")
    plt.yscale("log" if log_loss else "linear")
    plt.ylim(top=1.15 * max(*losses, *yardsticks.values()))  # room for the uppermost name
    if log_loss:
        plt.yticks([0.5, 1, 2, 4, 7], ["0.5", "1", "2", "4", "7"])
        plt.minorticks_off()
    plt.xlabel("step")
    plt.ylabel("loss, nats a token")
    plt.title(title)
    plt.legend(loc="upper center" if not log_steps else "lower left")
    plt.show()


def column(lines: Lines, name: str) -> tuple[list[int], list[float]]:
    """The steps at which something was measured, and its values."""
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]


def smoothed(values: Sequence[float], keep: float) -> list[float]:
    """A running mean that keeps a share of itself at each value, and starts with the first one.

    Args:
        values: in their order.
        keep: from 0, which changes nothing, to below 1.
    """
    means: list[float] = []
    for value in values:
        means.append(keep * means[-1] + (1 - keep) * value if means else value)
    return means


def explore_curve(lines: Lines, yardsticks: Mapping[str, float], title: str) -> None:
    """A slider for smoothing, and boxes for the axes and the yardsticks.

    Args:
        lines: see `draw_curve`.
        yardsticks: see `draw_curve`.
        title: of the figure.
    """

    def draw(smoothing: float, log_steps: bool, log_loss: bool, compare: bool) -> None:
        shown = yardsticks if compare else {}
        said = title if compare else "The loss of the run"
        said = "Smoothed: the curve lags behind" if smoothing else said
        draw_curve(lines, shown, said, smoothing, log_steps, log_loss)

    ipywidgets.interact(
        draw,
        smoothing=ipywidgets.FloatSlider(
            value=0.0, min=0.0, max=0.95, step=0.05, continuous_update=False
        ),
        log_steps=ipywidgets.Checkbox(value=False, description="steps on a log axis"),
        log_loss=ipywidgets.Checkbox(value=False, description="loss on a log axis"),
        compare=ipywidgets.Checkbox(value=True, description="yardsticks"),
    )
