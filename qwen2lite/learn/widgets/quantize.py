"""Explorer of rounding: how far off each layer's matrix is, in so many bits and such groups."""

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.learn.checks.quantize import evenly_rounded
from qwen2lite.model.qwen2 import Qwen2

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WHOLE_ROW = 0
"""As a group size: the row has one scale."""
_ROWS = 64
"""Of a matrix, that are rounded: enough for its error to two digits."""


def relative_error(weight: torch.Tensor, bits: int, group_size: int) -> float:
    """Length of the error as a part of the length of the weights, over some 64 rows of a matrix.

    Args:
        weight: [out, in].
        bits: 1 or more.
        group_size: divides in; or `WHOLE_ROW`.
    """
    rows = weight.detach()[:: max(1, len(weight) // _ROWS)].float().cpu()
    rounded = evenly_rounded(rows, bits, group_size or rows.shape[1])
    return float((rounded - rows).norm() / rows.norm())


def errors_by_layer(model: Qwen2, bits: int, group_size: int) -> dict[str, list[float]]:
    """`relative_error` of every matrix in the layers: by kind, from the first layer to the last."""
    errors: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for name, weight in model.model.layers.named_parameters():
        kind = name.split(".")[-2]
        if kind in errors and weight.ndim == 2:
            errors[kind].append(relative_error(weight, bits, group_size))
    return errors


def draw_layer_errors(
    model: Qwen2, matrix: str = "down_proj", bits: int = 4, group_size: int = 32
) -> None:
    """A bar a layer for one kind of matrix, and points for the six others.

    Args:
        model: of dense layers.
        matrix: one of `KINDS`.
        bits: of a code.
        group_size: divides every row; or `WHOLE_ROW`.
    """
    errors = errors_by_layer(model, bits, group_size)
    layers = range(len(errors[matrix]))
    _, panel = plt.subplots(figsize=(8.5, 3.4), layout="constrained")
    for kind in KINDS:
        if kind != matrix:
            label = "the other six" if kind == next(k for k in KINDS if k != matrix) else None
            shares = [100 * error for error in errors[kind]]
            panel.plot(layers, shares, ".", color="0.25", markersize=4, label=label, zorder=3)
    panel.bar(layers, [100 * error for error in errors[matrix]], color="#a6cee3", label=matrix)
    panel.set_xticks(layers[:: 1 + len(layers) // 30])
    panel.set_xlabel("layer")
    panel.set_ylabel("error, % of the weights' size")
    panel.set_ylim(bottom=0)
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    panel.set_title(_finding(errors, matrix, bits, group_size))
    plt.show()


def _finding(errors: dict[str, list[float]], matrix: str, bits: int, group_size: int) -> str:
    worst = max(range(len(errors[matrix])), key=lambda layer: errors[matrix][layer])
    groups = f"groups of {group_size}" if group_size else "one scale a row"
    return (
        f"{bits} bits, {groups}: {matrix} is off by {100 * min(errors[matrix]):.1f} to "
        f"{100 * errors[matrix][worst]:.1f} %, most in layer {worst}"
    )


def explore_layer_errors(model: Qwen2) -> None:
    """Choose a matrix, the bits and the size of a group: what hurts which layer?"""
    config = model.config
    sizes = [
        size
        for size in (16, 32, 64, 128)
        if not config.hidden_size % size and not config.intermediate_size % size
    ]

    def draw(matrix: str, bits: int, group: int) -> None:
        draw_layer_errors(model, matrix, bits, group)

    ipywidgets.interact(
        draw,
        matrix=ipywidgets.Dropdown(options=KINDS, value="down_proj"),
        bits=ipywidgets.IntSlider(value=4, min=2, max=8, continuous_update=False),
        group=ipywidgets.Dropdown(
            options=[*((str(size), size) for size in sizes), ("whole row", WHOLE_ROW)], value=32
        ),
    )
