"""Explorer of memory: what a GPU holds in training, for every size, number of GPUs and setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.train.plan import USABLE, Plan, plan

SIZES = ("0.5b", "1.5b", "7b", "57b-a14b", "72b")
KINDS = ("weights", "gradients", "optimizer", "copies", "activations", "logits")
NUMBERS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512, 1024)
"""Of GPUs, in the picture of all sizes."""


def plan_on(size: str, gpus: int, parallel: str, **settings: Any) -> Plan:
    """`plan`, where a single GPU has nobody to share with, whatever `parallel` says."""
    return plan(size, gpus=gpus, parallel="none" if gpus == 1 else parallel, **settings)


def parts_of(p: Plan) -> dict[str, float]:
    """GB on one GPU, by kind; of the logits and the layer on its way back, the larger one."""
    sizes = {kind: getattr(p, kind) for kind in KINDS} | {"logits": max(p.logits, p.layer)}
    return {kind: size / 1e9 for kind, size in sizes.items()}


def draw_memory(plans: Mapping[str, Plan], title: str) -> None:
    """A bar for each plan: what lies on one GPU, and where what it can use ends.

    Args:
        plans: by the name of the bar. They have GPUs of the same memory.
        title: what the picture shows.
    """
    _, panel = plt.subplots(figsize=(8.5, 0.55 * len(plans) + 1.7), layout="constrained")
    ends = dict.fromkeys(plans, 0.0)
    for number, kind in enumerate(KINDS):
        widths = [parts_of(p)[kind] for p in plans.values()]
        label = "logits, or a layer" if kind == "logits" else kind
        panel.barh(
            list(plans),
            widths,
            left=list(ends.values()),
            color=f"C{number}",
            label=label,
            edgecolor="white",
        )
        ends = {name: end + w for (name, end), w in zip(ends.items(), widths, strict=True)}
    longest = max(ends.values())
    for row, end in enumerate(ends.values()):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        panel.text(end + longest / 90, row, f"{end:,.1f}", va="center", fontsize=9, bbox=box)
    usable = USABLE * next(iter(plans.values())).memory / 1e9
    panel.set_xlim(0, 1.12 * longest)
    if usable <= 1.12 * longest:
        panel.axvline(usable, color="black", ls="--", lw=1, label=f"usable: {usable:g} GB")
    panel.invert_yaxis()
    panel.set_xlabel("GB on each GPU")
    panel.set_title(title, fontsize=11)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    plt.show()


def draw_over_gpus(title: str, numbers: Sequence[int] = NUMBERS, **settings: Any) -> None:
    """Memory of one GPU over how many there are, for the five sizes, with DDP and with FSDP.

    Args:
        title: what the picture shows.
        numbers: of GPUs.
        settings: of the plans.
    """
    _, panel = plt.subplots(figsize=(8.5, 4), layout="constrained")
    for number, size in enumerate(SIZES):
        for parallel, style in (("fsdp", "o-"), ("ddp", ":")):
            totals = [plan_on(size, gpus, parallel, **settings).total / 1e9 for gpus in numbers]
            label = size if parallel == "fsdp" else None
            panel.loglog(numbers, totals, style, color=f"C{number}", ms=4, label=label)
    usable = USABLE * plan_on(SIZES[0], 1, "fsdp", **settings).memory / 1e9
    panel.axhline(usable, color="black", ls="--", lw=1, label=f"usable: {usable:g} GB")
    panel.plot([], [], ":", color="0.4", label="with DDP")
    panel.plot([], [], "o-", color="0.4", ms=4, label="with FSDP")
    ticks = [number for number in numbers if number & (number - 1) == 0]
    panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.set_yticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1,000"])
    panel.minorticks_off()
    panel.set(xlabel="GPUs", ylabel="GB on each")
    panel.set_title(title, fontsize=11)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    plt.show()


def explore_memory() -> None:
    """Choose size, GPUs, sequence, batch and how they share: what lies on each GPU of 80 GB."""

    def draw(
        size: str, gpus: int, sequence: int, batch: int, parallel: str, recompute: bool
    ) -> None:
        settings = {"sequence_length": sequence, "batch_size": batch}
        p = plan_on(size, gpus, parallel, activation_checkpointing=recompute, **settings)
        draw_memory({size: p}, p.advice)

    ipywidgets.interact(
        draw,
        size=ipywidgets.Dropdown(options=SIZES, value="7b"),
        gpus=_slider("GPUs", [2**n for n in range(11)], 8),
        sequence=_slider("sequence", [2**n for n in range(9, 17)], 4096),
        batch=_slider("batch", range(1, 17), 1),
        parallel=ipywidgets.Dropdown(options=("ddp", "fsdp"), description="parallel"),
        recompute=ipywidgets.Checkbox(description="layers computed twice"),
    )


def _slider(name: str, options: Sequence[int], value: int) -> ipywidgets.SelectionSlider:
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=name, continuous_update=False
    )
