"""What the exercise 23_attention asks beside the parts: a mended kernel and two measurements."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.checks.attention import check_attend
from qwen2lite.learn.contract import Mistake, call, describe, random_normal, usual_reason
from qwen2lite.learn.mutants.attention_tasks import MUTANTS

Part = Callable[..., Any]


def check_mended_attend(mended_attend: Part) -> Iterator[str]:
    """The exercise's repaired function: it has to do what attend does."""
    yield from check_attend(mended_attend)


def check_first_overflow(first_overflow: Part) -> Iterator[str]:
    """The first whole number whose square, H times, is no float16 any more."""
    # Half a step beyond 65,504, the largest float16, rounding goes to infinity.
    for head_dim in (64, 128, 1, 96):
        got = call(first_overflow, head_dim)
        if isinstance(got, bool) or not isinstance(got, int):
            raise Mistake(f"first_overflow returned {describe(got)}, not a whole number.")
        what = f"first_overflow({head_dim}) is {got}: {got} · {got} · {head_dim} is"
        if got * got * head_dim < 65_520:
            raise Mistake(
                f"{what} {got * got * head_dim:,}, which float16 can hold.",
                "float16 ends at 65,504.",
            )
        if (got - 1) ** 2 * head_dim >= 65_520:
            raise Mistake(
                f"{what} too much, but {got - 1} would be too much already.",
                "A score adds up H products: it is x · x · H that has to fit, not x · x.",
            )
    yield "32 for a head of 64 numbers, 23 for one of 128"


def check_first_token_share(first_token_share: Part) -> Iterator[str]:
    """A share by hand, then the same by loops on random weights."""
    mutants = MUTANTS["first_token_share"]
    weights_NTS = torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]])
    got = call(first_token_share, weights_NTS)
    _require_share(
        got, 0.35, "the rows (1, 0, 0), (½, ½, 0), (0.2, 0.3, 0.5)", mutants, weights_NTS
    )
    yield "by hand: 0.5 and 0.2 make 0.35"

    weights_NTS = random_normal(3, 5, 5).softmax(-1)
    rows = [[row[0] for row in head[1:]] for head in weights_NTS.tolist()]
    want = sum(sum(row) for row in rows) / 12
    got = call(first_token_share, weights_NTS)
    _require_share(got, want, "three heads of five tokens", mutants, weights_NTS)
    yield "a mean over all heads and all queries but the first"


def _require_share(
    got: Any, want: float, what: str, mutants: Any, weights_NTS: torch.Tensor
) -> None:
    if not isinstance(got, float | torch.Tensor) or torch.as_tensor(got).numel() != 1:
        raise Mistake(f"first_token_share returned {describe(got)}; one number was wanted.")
    share = torch.as_tensor(float(got))
    if abs(float(share) - want) > 1e-5:
        why = usual_reason(mutants, share, weights_NTS)
        raise Mistake(f"For {what} the share is {want:.4g}, and yours is {share:.4g}.", why)
