"""Explorer of RMSNorm: how wrong it gets in each dtype, from quiet vectors to loud ones."""

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.learn.mutants.norm import NarrowSquares
from qwen2lite.model.norm import RMSNorm

SIZES = tuple(2.0**power for power in range(-14, 16))
"""The largest number of a vector. float16 goes on to 65,504."""
_WAYS = (
    ("all in float16", NarrowSquares, torch.float16, "C3.-"),
    ("all in bfloat16", NarrowSquares, torch.bfloat16, "C0.-"),
    ("float32 inside, float16 out", RMSNorm, torch.float16, "C3--"),
    ("float32 inside, bfloat16 out", RMSNorm, torch.bfloat16, "C0--"),
)


def errors_by_size(
    part: type[RMSNorm], dtype: torch.dtype, eps: float = 1e-6, width: int = 896
) -> list[float]:
    """Relative error of one random vector's norm, for each of `SIZES`; 1 where nothing is right.

    Args:
        part: the norm.
        dtype: of the vector and the weight.
        eps: see `RMSNorm`.
        width: coordinates of the vector.
    """
    vector = torch.randn(1, 1, width, generator=torch.Generator().manual_seed(0))
    layer = part(width, eps).to(dtype)
    errors = []
    for size in SIZES:
        given = (vector / vector.abs().max() * size).to(dtype)
        wide = given.double()
        right = wide / (wide.square().mean() + eps).sqrt()
        with torch.no_grad():
            off = (layer(given).double() - right).norm() / right.norm()
        errors.append(float(off.nan_to_num(1).clamp(max=1)))
    return errors


def draw_errors(eps: float = 1e-6, width: int = 896) -> None:
    """The errors of four ways to compute the same norm, over the size of the vector.

    Args:
        eps: see `RMSNorm`.
        width: coordinates of the vector.
    """
    plt.figure(figsize=(8.5, 3.4), layout="constrained")
    lost = []
    for name, part, dtype, style in _WAYS:
        errors = errors_by_size(part, dtype, eps, width)
        lost += [size for size, error in zip(SIZES, errors, strict=True) if error > 0.5]
        plt.loglog(SIZES, errors, style, base=2, label=name, linewidth=1.5)
    plt.xlabel("largest number of the vector")
    plt.ylabel("relative error of the result")
    powers = range(-14, 16, 4)
    plt.xticks([2.0**power for power in powers], [f"$2^{{{power}}}$" for power in powers])
    plt.yticks([1, 0.1, 0.01, 0.001, 0.0001], ["1", "0.1", "0.01", "0.001", "0.0001"])
    plt.ylim(5e-5, 2)
    plt.title(_finding(lost), fontsize=10)
    plt.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    plt.show()


def _finding(lost: list[float]) -> str:
    """What one way or another loses altogether, in a sentence."""
    places = []
    if quiet := [size for size in lost if size < 1]:
        places.append(f"up to {max(quiet):.2g}")
    if loud := [size for size in lost if size >= 1]:
        places.append(f"from {min(loud):g} on")
    if not places:
        return "No way of computing loses the vector"
    return f"All in float16, the vector is lost {' and '.join(places)}"


def explore_errors() -> None:
    """Sliders over eps and the width: where float16 loses the vector."""

    def draw(eps: float, width: int) -> None:
        draw_errors(10.0**eps, 2**width)

    ipywidgets.interact(
        draw,
        eps=ipywidgets.IntSlider(
            value=-6, min=-12, max=-2, description="eps 10^", continuous_update=False
        ),
        width=ipywidgets.IntSlider(
            value=10, min=2, max=13, description="width 2^", continuous_update=False
        ),
    )
