"""Explorer of a block: 32 weights that share a scale, and what rounding them to a few bits loses."""

import ipywidgets
import matplotlib.pyplot as plt
import torch

BITS = range(2, 9)


def round_in_blocks(weights: torch.Tensor, bits: int, block: int = 32) -> torch.Tensor:
    """Weights as they come back from whole numbers of a few bits and a scale for each block.

    The largest absolute value of a block becomes the largest whole number, 2^(bits - 1) - 1. It is the
    plainest way to do it; llama.cpp's kinds choose their scales with more care.

    Args:
        weights: as many as fill whole blocks.
        bits: of each whole number, sign included.
        block: numbers that share a scale.
    """
    blocks = weights.reshape(-1, block)
    scale = blocks.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale == 0, 1, scale)
    return ((blocks / scale).round() * scale).view_as(weights)


def loss_of(weights: torch.Tensor, bits: int) -> float:
    """What rounding loses: the norm of the error, divided by the norm of the weights."""
    return ((weights - round_in_blocks(weights, bits)).norm() / weights.norm()).item()


def some_block(outlier: float) -> torch.Tensor:
    """32 numbers spread as normal ones are, the same on every machine, and one of them larger.

    Args:
        outlier: the largest number is multiplied with it.
    """
    places = torch.arange(32) * 13 % 32
    normal = torch.special.ndtri((places + 0.5) / 32)
    return torch.where(places == 31, normal * outlier, normal)


def draw_block(bits: int = 4, outlier: float = 1.0) -> None:
    """Left the 32 weights and where they may stand, right what is lost over the bits.

    Args:
        bits: of each number.
        outlier: the largest number is multiplied with it.
    """
    weights, calm = some_block(outlier), some_block(1.0)
    rounded = round_in_blocks(weights, bits)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.6), layout="constrained", width_ratios=(3, 2)
    )
    steps = 2 ** (bits - 1) - 1
    if bits <= 5:
        for step in range(-steps, steps + 1):
            left.axhline(step * float(weights.abs().max()) / steps, color="0.88", lw=0.8)
    left.vlines(range(32), weights, rounded, color="C3", lw=1.5)
    left.plot(weights, "o", ms=4, color="C0", label="weight")
    left.plot(rounded, "_", ms=8, color="C3", label="comes back as")
    reach = 1.1 * float(weights.abs().max())
    left.set(xlabel="number in the block", ylabel="value", ylim=(-reach, reach))
    nothing = int((rounded == 0).sum())
    left.set_title(f"{bits} bits: {nothing} of 32 weights become 0", fontsize=11)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8)
    right.semilogy(BITS, [100 * loss_of(calm, n) for n in BITS], "o-", ms=4, label="as they are")
    if outlier != 1:
        losses = [100 * rest_loss(outlier, n) for n in BITS]
        right.semilogy(
            BITS, losses, "s-", ms=4, color="C3", label=f"the other 31, one × {outlier:g}"
        )
        right.legend(fontsize=8)
    right.set(xlabel="bits", ylabel="error, % of the weights")
    right.set_ylim(0.3, 150)
    whose = "the others lose" if outlier != 1 else "they lose"
    lost = float(f"{100 * rest_loss(outlier, bits):.2g}")
    right.set_title(f"In {bits} bits {whose} {lost:g} %", fontsize=11)
    plt.show()


def rest_loss(outlier: float, bits: int) -> float:
    """What the block loses, the large number itself left out of both norms where there is one."""
    weights = some_block(outlier)
    kept = weights.abs() < weights.abs().max() if outlier != 1 else torch.ones(32, dtype=torch.bool)
    error = (weights - round_in_blocks(weights, bits))[kept]
    return (error.norm() / weights[kept].norm()).item()


def explore_block() -> None:
    """Sliders over the bits and the size of one weight."""
    ipywidgets.interact(
        draw_block,
        bits=ipywidgets.IntSlider(
            value=4, min=2, max=8, description="bits", continuous_update=False
        ),
        outlier=ipywidgets.FloatSlider(
            value=1, min=1, max=20, step=0.5, description="largest ×", continuous_update=False
        ),
    )
