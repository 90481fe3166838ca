"""Wrong answers to the tasks of the exercise 25_swiglu that are no part."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def sigmoid_alone(x: Tensor) -> Tensor:
    """This is the sigmoid, a number between 0 and 1. SiLU is x times it."""
    return x.sigmoid()


def hard_corner(x: Tensor) -> Tensor:
    """This is ReLU, which is 0 for everything below 0. SiLU dips to -0.28 there and has no corner."""
    return x.clamp(min=0)


def by_the_normal(x: Tensor) -> Tensor:
    """This is GELU: x times the normal distribution function. SiLU is x times the sigmoid."""
    return F.gelu(x)


def turned_round(x: Tensor) -> Tensor:
    """The sign in the exponent is turned round: σ(x) = 1 / (1 + exp(-x)), with a minus."""
    return x / (1 + x.exp())


def infinite_by_infinite(x: Tensor) -> Tensor:
    """For large x this is infinite divided by infinite. exp(x) / (1 + exp(x)) is the sigmoid on paper;
    torch.sigmoid is it in float32 too."""
    return x * x.exp() / (1 + x.exp())


def infinite_on_the_way_back(x: Tensor) -> Tensor:
    """exp(200) is infinite. The answer survives it, for what is divided by infinity is 0. The gradient
    doesn't: on the way back infinity meets a 0, which makes NaN. Take torch.sigmoid."""
    return x / (1 + (-x).exp())


def branches_swapped(x_BTD: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
    """SiLU is on the wrong branch: it belongs to the gate, and up stays as it is (mlx-lm #767)."""
    return (x_BTD @ gate_FD.T) * F.silu(x_BTD @ up_FD.T) @ down_DF.T


def silu_of_the_product(x_BTD: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
    """SiLU is taken of the product. It is taken of the gate alone, and then multiplied: a bracket in
    the wrong place (breakdown-minimind #3, matformer #4)."""
    return F.silu((x_BTD @ gate_FD.T) * (x_BTD @ up_FD.T)) @ down_DF.T


def branches_added(x_BTD: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
    """The branches are added. A gate multiplies: it says how much of the other passes."""
    return (F.silu(x_BTD @ gate_FD.T) + x_BTD @ up_FD.T) @ down_DF.T


def sigmoid_gate(x_BTD: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
    """The gate's function is the sigmoid alone, the older GLU. Here it is SiLU."""
    return (x_BTD @ gate_FD.T).sigmoid() * (x_BTD @ up_FD.T) @ down_DF.T


def up_first(x_BTD: Tensor, gate_up_2FD: Tensor, down_DF: Tensor) -> Tensor:
    """The upper half of the joined matrix is taken for up, and it is the gate: engines stack them in
    the order gate, up (mlx-lm #767 swapped them)."""
    up_BTF, gate_BTF = (x_BTD @ gate_up_2FD.T).chunk(2, dim=-1)
    return (F.silu(gate_BTF) * up_BTF) @ down_DF.T


def every_second(x_BTD: Tensor, gate_up_2FD: Tensor, down_DF: Tensor) -> Tensor:
    """Gate and up are taken from every second row. They lie one below the other: two halves."""
    both = x_BTD @ gate_up_2FD.T
    return (F.silu(both[..., ::2]) * both[..., 1::2]) @ down_DF.T


def cut_along_the_tokens(x_BTD: Tensor, gate_up_2FD: Tensor, down_DF: Tensor) -> Tensor:
    """The product is cut in two along the tokens. Gate and up are halves of the last dimension."""
    both = x_BTD @ gate_up_2FD.T
    gate, up = both.chunk(2, dim=-2)
    width = down_DF.shape[1]
    return (F.silu(gate[..., :width]) * up[..., :width]) @ down_DF.T


def activated_first(x_BTD: Tensor, gate_up_2FD: Tensor, down_DF: Tensor) -> Tensor:
    """SiLU is taken of both halves. up stays as it is."""
    gate_BTF, up_BTF = F.silu(x_BTD @ gate_up_2FD.T).chunk(2, dim=-1)
    return (gate_BTF * up_BTF) @ down_DF.T


def of_their_sizes(h_F: Tensor, share: float) -> int:
    """The sizes are added up as they are. Wanted is the share of the *squares*: what a neuron adds to
    the length of the answer grows with its square."""
    return _count(h_F.abs(), share)


def of_the_positive(h_F: Tensor, share: float) -> int:
    """Negative activations are left out. They write as much, only in the opposite direction."""
    return _count(h_F.clamp(min=0).square(), share)


def in_their_order(h_F: Tensor, share: float) -> int:
    """The neurons are taken in the order in which they stand. Take the largest first: sort before you
    add up."""
    sums = h_F.square().cumsum(0)
    return int((sums < share * sums[-1]).sum()) + 1


def one_too_few(h_F: Tensor, share: float) -> int:
    """This counts the neurons that don't reach the share yet. The next one, which does, is needed
    too."""
    return _count(h_F.square(), share) - 1


def beyond_the_share(h_F: Tensor, share: float) -> int:
    """Where some neurons hold exactly the share, one more is counted. *At least* the share is wanted:
    compare with <."""
    sums = h_F.square().sort(descending=True).values.cumsum(0)
    return int((sums <= share * sums[-1]).sum()) + 1


def _count(amounts_F: Tensor, share: float) -> int:
    sums = amounts_F.sort(descending=True).values.cumsum(0)
    return int((sums < share * sums[-1]).sum()) + 1


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "silu": (
        sigmoid_alone,
        hard_corner,
        by_the_normal,
        turned_round,
        infinite_by_infinite,
        infinite_on_the_way_back,
    ),
    "swiglu": (branches_swapped, silu_of_the_product, branches_added, sigmoid_gate),
    "mended_swiglu": (up_first, every_second, cut_along_the_tokens, activated_first),
    "neurons_needed": (
        of_their_sizes,
        of_the_positive,
        in_their_order,
        one_too_few,
        beyond_the_share,
    ),
}
"""The wrong versions of each task."""
