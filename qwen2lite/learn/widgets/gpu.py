"""Explorer of one decode step: how long it takes to send it, and how long the GPU works at it.

The two go on at the same time, so the longer decides. All of it is computed from published limits and
an assumed time to send; nothing is measured.
"""

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.infer.compile import LEAST_LENGTH
from qwen2lite.infer.roofline import Roofline

MACHINES = {
    "RTX 4090": Roofline(1.008e12, 165e12),
    "A100 80 GB": Roofline(2.039e12, 312e12),
    "H100": Roofline(3.35e12, 989e12),
    "H200": Roofline(4.8e12, 989e12),
}
"""Bandwidth and bfloat16 rate, without sparsity, as NVIDIA's data sheets give them (SXM cards)."""
OPERATIONS = {"one by one": 980, "compiled": 362, "one graph": 1}
"""Sent for a step of the 0.5B in bfloat16: as lesson 83 counts them, fused at best, and recorded."""
PARAMETERS = 494_032_768
COLUMN_BYTES = 2 * 24 * 2 * 64 * 2
"""Of the 0.5B's cache in bfloat16: keys and values, layers, heads, numbers, bytes."""


def working_seconds(rows: int, columns: int, machine: Roofline) -> tuple[float, float]:
    """The least time of the GPU's own work at a step of the 0.5B: for its weights, and for its caches.

    Args:
        rows: texts in the batch; they share the weights, and each has a cache.
        columns: of each cache.
        machine: its limits. The products with the caches take less time than fetching them.
    """
    weights = machine.least_seconds(2 * PARAMETERS, 2 * PARAMETERS * rows)
    return weights, rows * columns * COLUMN_BYTES / machine.bandwidth


def tokens_a_second(
    rows: int, columns: int, operations: int, launch: float, machine: Roofline
) -> float:
    """The most that can be written: Python sends while the GPU works, and the slower one decides.

    Args:
        rows: see `working_seconds`.
        columns: see `working_seconds`.
        operations: sent one after the other.
        launch: seconds to send one.
        machine: its limits.
    """
    return rows / max(sum(working_seconds(rows, columns, machine)), operations * launch)


def draw_step(
    machine: str = "H100", rows: int = 1, columns: int = 1024, launch: float = 5.0
) -> None:
    """Three ways to send one step: above, Python sending; below, the GPU working.

    Args:
        machine: of `MACHINES`.
        rows: see `working_seconds`.
        columns: see `working_seconds`.
        launch: microseconds to send one operation; it depends on the processor and on Python.
    """
    limits = MACHINES[machine]
    weights, caches = (1e3 * s for s in working_seconds(rows, columns, limits))
    figure, panel = plt.subplots(figsize=(9, 3.6), layout="constrained")
    fastest = {}
    for place, (way, operations) in enumerate(OPERATIONS.items()):
        sent = operations * launch / 1e3
        fastest[way] = tokens_a_second(rows, columns, operations, launch * 1e-6, limits)
        bars = ((sent, 0, -0.2, "C1", "sending"), (weights, 0, 0.2, "C0", "working: weights"),
                (caches, weights, 0.2, "#a6cee3", "working: caches"))  # fmt: skip
        for width, left, offset, colour, label in bars:
            name = label if place == 0 else None
            panel.barh(place + offset, width, 0.36, left=left, color=colour, label=name)
        end = max(sent, weights + caches)
        panel.text(end, place, f"  at most {fastest[way]:,.0f} tokens/s", va="center")
    panel.set_yticks(range(len(OPERATIONS)), [f"{w}: {n}" for w, n in OPERATIONS.items()])
    panel.set_ylabel("operations sent")
    panel.invert_yaxis()
    memory = (2 * PARAMETERS + rows * columns * COLUMN_BYTES) / 1e9
    panel.set_xlabel(f"milliseconds (weights and caches: {memory:.1f} GB)")
    panel.set_xlim(0, 1.35 * max(OPERATIONS["one by one"] * launch / 1e3, weights + caches))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    panel.set_title(_finding(machine, rows, fastest))
    plt.show()


def _finding(machine: str, rows: int, fastest: dict[str, float]) -> str:
    article, plural = "an" if machine[0] in "AHR" else "a", "s" * (rows > 1)
    where = f"The 0.5B on {article} {machine}, {rows} row{plural}"
    times = fastest["one graph"] / fastest["one by one"]
    if times < 1.05:
        return f"{where}: the GPU is busy anyway, and a graph gains nothing"
    return f"{where}: a graph lifts the limit {times:.1f}-fold"


def explore_step() -> None:
    """Sliders over machine, rows, columns and the time to send: who waits for whom?"""
    widgets = {
        "machine": ipywidgets.Dropdown(options=list(MACHINES), value="H100"),
        "rows": ipywidgets.SelectionSlider(options=[2**n for n in range(9)], value=1),
        "columns": ipywidgets.SelectionSlider(options=[2**n for n in range(8, 14)], value=1024),
        "launch": ipywidgets.FloatSlider(value=5.0, min=0.5, max=20.0, step=0.5),
    }
    for name, widget in widgets.items():
        widget.description = "launch, µs" if name == "launch" else name
        if name != "machine":
            widget.continuous_update = False
    ipywidgets.interact(draw_step, **widgets)


def next_size(length: int) -> int:
    """Columns of the static cache for a text of so many tokens: `CompiledQwen2.new_cache` doubles."""
    return max(LEAST_LENGTH, 1 << (length - 1).bit_length())


def draw_columns(most: int = 4096) -> None:
    """Columns that a step looks at: those that are filled, those of the next size, and all.

    Args:
        most: the longest text.
    """
    lengths = range(1, most + 1)
    sizes = [next_size(length) for length in lengths]
    _, panel = plt.subplots(figsize=(8, 3.4), layout="constrained")
    panel.plot(lengths, [most] * most, "--", color="0.6", label="one size for all")
    panel.step(lengths, sizes, color="C1", label="sizes that double")
    panel.plot(lengths, list(lengths), color="C0", label="only what is filled")
    panel.set_xlabel("tokens that the text may have")
    panel.set_ylabel("columns looked at")
    panel.set_xticks(sorted(set(sizes)), labels=[f"{n:,}" for n in sorted(set(sizes))])
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.set_xlim(0, most)
    panel.set_ylim(0, 1.08 * most)
    panel.legend(loc="lower right")
    count = len(set(sizes))
    panel.set_title(
        f"{count} sizes will do, and above 128 tokens none is twice as long as its text"
    )
    plt.show()
