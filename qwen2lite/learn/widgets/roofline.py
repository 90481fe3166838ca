"""Explorer of the roofline: what bounds a step of decoding, by size, texts, bits and machine."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator

from qwen2lite.infer.quantize import GROUP_SIZE
from qwen2lite.infer.roofline import Roofline, product_rate, read_bandwidth
from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.device import pick_dtype
from qwen2lite.train.cost import flops_per_token, multiplied

H100 = Roofline(bandwidth=3.35e12, rate=989e12)
"""NVIDIA H100 SXM, dense bfloat16. Its data sheet prints twice the rate, which is "with sparsity"."""
LAPTOP = Roofline(bandwidth=2 * 8 * 5.6e9, rate=8 * 3.5e9 * 32)
"""An example, reckoned and not measured: two channels of DDR5-5600, 8 bytes wide; and eight cores of
3.5 GHz with two AVX2 units each, which multiply and add 8 float32 at once."""
BYTES = {16: 2.0, 8: 1.0, 4: 0.5 + 4 / GROUP_SIZE}
"""Of a weight, by its bits; with 4, each group has a scale and a zero of 2 bytes."""
SIZES = ("0.5b", "1.5b", "7b", "72b")
HERE = "this machine"
_CPU = torch.device("cpu")

Point = tuple[float, float]
"""Operations a byte, and operations a second."""


@functools.cache
def this_machine() -> Roofline:
    """The limits of this CPU in its fast format, once a process: the best of some tries.

    One try is too few where other programs run as well. They can only make it look slower.
    """
    dtype = pick_dtype(_CPU)
    bandwidth = max(read_bandwidth(_CPU) for _ in range(2))
    return Roofline(bandwidth, max(product_rate(_CPU, dtype) for _ in range(4)))


def step_work(
    config: Qwen2Config, rows: int, length: int, bytes_each: float
) -> tuple[float, float]:
    """Bytes and operations of a step that writes one token of each text.

    All rows share the weights, and each reads a cache of its own, in 2 bytes a number.

    Args:
        config: of a dense model; the rows of a batch choose different experts.
        rows: texts written at once.
        length: tokens in each of them so far.
        bytes_each: of a weight.
    """
    cache = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    # Reading is a third of training, and training's tokens see half of their text on average.
    flops = rows * flops_per_token(config, 2 * length) / 3
    return bytes_each * multiplied(config) + rows * length * cache, flops


def draw_roofline(
    machines: Mapping[str, Roofline], points: Mapping[str, Point], title: str
) -> None:
    """Roofs over operations a byte, and work under them.

    Args:
        machines: by name; the first is drawn in full, others pale.
        points: by what the legend calls them.
        title: what the picture shows.
    """
    _, panel = plt.subplots(figsize=(8.5, 4), layout="constrained")
    found = [intensity for intensity, _ in points.values()]
    ends = [min([0.3, *found]) / 1.5, max([1000.0, *found]) * 1.5]
    for number, (name, machine) in enumerate(machines.items()):
        places = [ends[0], machine.ridge, ends[1]] if ends[0] < machine.ridge < ends[1] else ends
        heights = [machine.attainable(place) / 1e12 for place in places]
        colour, width = ("black", 2) if number == 0 else ("0.65", 1.2)
        panel.loglog(places, heights, color=colour, lw=width)
        panel.annotate(
            f"{name}: {_short(machine.bandwidth / 1e9)} GB/s, {_short(machine.rate / 1e12)} TFLOP/s",
            (ends[1], heights[-1]), (-4, 4), textcoords="offset points", ha="right", fontsize=9,
        )  # fmt: skip
    for number, (name, (intensity, rate)) in enumerate(points.items()):
        panel.loglog(intensity, rate / 1e12, "o", color=f"C{number % 10}", ms=8, label=name)
    panel.margins(y=0.12)
    plain_ticks(panel.xaxis)
    plain_ticks(panel.yaxis)
    panel.set(xlabel="operations a byte", ylabel="10¹² operations a second")
    panel.set_title(title, fontsize=11)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    plt.show()


def plain_ticks(axis: Axis, steps: Sequence[int] = (1,)) -> None:
    """Numbers in place of powers of ten on a logarithmic axis.

    Args:
        axis: of a panel.
        steps: which of 1 to 9 have a tick in each power of ten.
    """
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter("{x:,g}")


def draw_bound(
    size: str = "0.5b", rows: int = 1, length: int = 0, bits: int = 16, machine: str = "H100"
) -> None:
    """One step of decoding as a point on the roof of a machine, with its limit in the title.

    Args:
        size: of Qwen2, one of `SIZES`.
        rows: texts written at once.
        length: tokens in each of them so far.
        bits: of a weight, one of `BYTES`.
        machine: "H100", "laptop" or `HERE`, which is measured at its first use.
    """
    limits = {"H100": H100, "laptop": LAPTOP}.get(machine) or this_machine()
    nbytes, flops = step_work(CONFIGS[f"qwen2-{size}"], rows, length, BYTES[bits])
    seconds = limits.least_seconds(nbytes, flops)
    bound = "memory" if flops / nbytes < limits.ridge else "arithmetic"
    what = f"{size.upper()}, {rows} {'text' if rows == 1 else 'texts'}, {bits} bits"
    title = f"{what} on {machine}: {bound} bounds, at most {_short(rows / seconds)} tokens/s"
    others = {"H100": H100, "laptop": LAPTOP}
    machines = {machine: limits} | {k: v for k, v in others.items() if k != machine}
    draw_roofline(machines, {"this step": (flops / nbytes, flops / seconds)}, title)


def explore_bound() -> None:
    """Choose size, texts at once, length, bits and machine: the point slides along the roof."""
    ipywidgets.interact(
        draw_bound,
        size=ipywidgets.Dropdown(options=SIZES, value="0.5b", description="size"),
        rows=_slider("texts", [2**n for n in range(12)], 1),
        length=_slider("length", [0, *(2**n for n in range(9, 18))], 0),
        bits=ipywidgets.Dropdown(options=list(BYTES), value=16, description="bits"),
        machine=ipywidgets.Dropdown(
            options=("H100", "laptop", HERE), value="H100", description="machine"
        ),
    )


def _short(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def _slider(name: str, options: list[int], value: int) -> Any:
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=name, continuous_update=False
    )
