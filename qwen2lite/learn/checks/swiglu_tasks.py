"""What the exercise 25_swiglu asks beside the layer: SiLU, SwiGLU, a joined matrix, a measurement."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    random_normal,
    require_gradient,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.swiglu_tasks import MUTANTS, infinite_on_the_way_back

Part = Callable[..., Any]
_LOG3 = math.log(3)


def check_silu(silu: Part) -> Iterator[str]:
    """Three numbers by hand, shapes and dtypes, large numbers, the gradient there and below zero."""
    x = torch.tensor([0.0, _LOG3, -_LOG3])
    got = call(silu, x)
    why = usual_reason(MUTANTS["silu"], got, x)
    require_tensor(got, [3], torch.float32, "silu", why)
    want = torch.tensor([0.0, 0.75 * _LOG3, -0.25 * _LOG3])
    if not same(got, want):
        raise Mistake(
            "σ(log 3) is 3/4 and σ(-log 3) is 1/4, so silu of 0, log 3 and -log 3 is "
            f"{numbers(want)}; got {numbers(got)}.",
            why,
        )
    yield "0, ¾ log 3 and -¼ log 3, by hand"

    x = random_normal(2, 3, 4).bfloat16()
    got = call(silu, x)
    why = usual_reason(MUTANTS["silu"], got, x)
    require_tensor(got, [2, 3, 4], torch.bfloat16, "silu of bfloat16", why)
    if not same(got.float(), x.float() * x.float().sigmoid(), 2e-2):
        raise Mistake("In bfloat16 the numbers are wrong.", why)
    _require_large_numbers(silu)
    yield "any shape and dtype, and large numbers too"

    leaf = torch.tensor([-2.0, -0.5, 3.0]).requires_grad_()
    require_gradient(call(silu, leaf), {"its input": leaf}, "silu")
    yield "the gradient passes, also below zero"


def _require_large_numbers(silu: Part) -> None:
    x = torch.tensor([-200.0, 200.0])
    got = call(silu, x)
    if not same(got, torch.tensor([0.0, 200.0])):
        why = usual_reason(MUTANTS["silu"], got, x)
        raise Mistake(f"silu of -200 and 200 is 0 and 200; got {numbers(got)}.", why)

    leaf = x.clone().requires_grad_()
    got = call(silu, leaf)
    if got.requires_grad:
        (slope,) = torch.autograd.grad(got.sum(), leaf, allow_unused=True)
        if slope is not None and not slope.isfinite().all():
            wrong = f"The gradient at -200 and 200 is 0 and 1; got {numbers(slope)}."
            raise Mistake(wrong, told_by(infinite_on_the_way_back))


def check_swiglu(swiglu: Part) -> Iterator[str]:
    """Two neurons by hand, then random matrices."""
    x = torch.tensor([[[_LOG3, 2.0]]])
    matrices = (
        torch.eye(2),
        torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        torch.tensor([[4.0, 1.0], [0.0, 0.0]]),
    )
    got = call(swiglu, x, *matrices)
    why = usual_reason(MUTANTS["swiglu"], got, x, *matrices)
    require_tensor(got, [1, 1, 2], torch.float32, "swiglu", why)
    silu_2 = 2 / (1 + math.exp(-2.0))
    want = 4 * (0.75 * _LOG3 * 2) + silu_2 * _LOG3
    if not same(got, torch.tensor([[[want, 0.0]]])):
        raise Mistake(
            "Two neurons, with gates log 3 and 2, ups 2 and log 3, downs [4, 0] and [1, 0], give "
            f"[4 · (¾ log 3 · 2) + silu(2) · log 3, 0] = [{want:.4f}, 0]; got {numbers(got)}.",
            why,
        )
    yield f"two neurons by hand: {want:.4f}"

    gate, up, down = (
        random_normal(*shape, seed=i) for i, shape in enumerate([(7, 4)] * 2 + [(4, 7)])
    )
    x = random_normal(2, 3, 4, seed=8)
    got = call(swiglu, x, gate, up, down)
    why = usual_reason(MUTANTS["swiglu"], got, x, gate, up, down)
    require_tensor(got, [2, 3, 4], torch.float32, "swiglu", why)
    want_x = sum(
        (x @ g / (1 + torch.exp(-(x @ g))) * (x @ u))[..., None] * d
        for g, u, d in zip(gate, up, down.T, strict=True)
    )
    if not same(got, want_x, 1e-4):
        raise Mistake("On random matrices, seven neurons and six tokens, it is wrong.", why)
    yield "seven neurons and six tokens"


def check_mended_swiglu(mended_swiglu: Part) -> Iterator[str]:
    """One neuron by hand, whose gate and up differ, then random matrices joined."""
    x = torch.tensor([[[1.0], [1.0]]])
    matrices = (torch.tensor([[-100.0], [5.0]]), torch.tensor([[1.0]]))
    got = call(mended_swiglu, x, *matrices)
    why = usual_reason(MUTANTS["mended_swiglu"], got, x, *matrices)
    require_tensor(got, [1, 2, 1], torch.float32, "mended_swiglu", why)
    if not same(got, torch.zeros(1, 2, 1)):
        raise Mistake(
            "One neuron with gate -100 and up 5: the gate is shut, and 0 comes out; "
            f"got {numbers(got)}.",
            why,
        )
    yield "a shut gate lets nothing pass"

    x, gate, up, down = (
        random_normal(*shape, seed=i) for i, shape in enumerate([(2, 6, 4), (7, 4), (7, 4), (4, 7)])
    )
    joined = torch.cat((gate, up))
    got = call(mended_swiglu, x, joined, down)
    why = usual_reason(MUTANTS["mended_swiglu"], got, x, joined, down)
    require_tensor(got, [2, 6, 4], torch.float32, "mended_swiglu", why)
    opened = x @ gate.T / (1 + torch.exp(-(x @ gate.T)))
    if not same(got, opened * (x @ up.T) @ down.T, 1e-4):
        raise Mistake("With two random matrices joined, gate above up, it is wrong.", why)
    yield "two matrices joined give what two apart give"


def check_neurons_needed(neurons_needed: Part) -> Iterator[str]:
    """Squares of 1, 16 and 9 by hand, equal ones, then random ones, counted one by one."""
    by_hand = torch.tensor([-1.0, 0.0, -4.0, 3.0, 0.0])
    for share, want in ((0.5, 1), (0.9, 2), (0.99, 3)):
        _require_count(neurons_needed, by_hand, share, want, "-1, 0, -4, 3 and 0")
    yield "by hand: of squares 1, 16 and 9 one holds a half, two hold 90 %"

    _require_count(neurons_needed, torch.tensor([1.0, -1.0, 1.0, 1.0]), 0.5, 2, "1, -1, 1 and 1")
    yield "a share that is met exactly is held"

    for seed in range(4):
        h_F = random_normal(60, seed=seed) ** 3
        squares = sorted((value * value for value in h_F.double().tolist()), reverse=True)
        held, want = 0.0, 0
        while held < 0.8 * sum(squares):
            held, want = held + squares[want], want + 1
        _require_count(neurons_needed, h_F, 0.8, want, "60 random activations")
    yield "the fewest neurons that hold the share, the largest first"


def _require_count(part: Part, h_F: torch.Tensor, share: float, want: int, what: str) -> None:
    got = call(part, h_F, share)
    if isinstance(got, bool) or not isinstance(got, int | float | torch.Tensor):
        raise Mistake(f"neurons_needed returned {describe(got)}; a whole number was wanted.")
    if torch.as_tensor(got).numel() != 1 or int(got) != got:
        raise Mistake(f"neurons_needed returned {describe(got)}; a whole number was wanted.")
    if int(got) != want:
        known = [m for m in MUTANTS["neurons_needed"] if m(h_F, share) == int(got)]
        why = usual_reason(map(_as_tensor, known), torch.tensor(int(got)), h_F, share)
        raise Mistake(
            f"Of {what}, {want} hold {share:.0%} of the squares, and yours says {int(got)}.", why
        )


def _as_tensor(mutant: Part) -> Part:
    def answer(*inputs: Any) -> torch.Tensor:
        return torch.tensor(mutant(*inputs))

    answer.__doc__ = mutant.__doc__
    return answer
