"""What `causal_mask` and `attend` have to do.

Expected values are by hand: a mask of six numbers, and equal scores, which make a plain average. Random
heads are compared with the formula in float64, one at a time.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    meta_device,
    numbers,
    random_normal,
    require_gradient,
    require_tensor,
    same,
    usual_reason,
)
from qwen2lite.learn.mutants.attention import MUTANTS

Part = Callable[..., Any]
_CAUSAL_TS = torch.ones(5, 7, dtype=torch.bool).tril(2)
_ZERO_AND_ONE = torch.tensor([[0.0] * 4, [1.0] * 4]).view(1, 1, 2, 4)
"""Two values, of which the second's weight can be read off the answer."""


def check_causal_mask(causal_mask: Part) -> Iterator[str]:
    """Masks by hand: a whole text, the last two of five, a single token, and the device."""
    mutants = MUTANTS["causal_mask"]
    got = call(causal_mask, 3, 3)
    why = usual_reason(mutants, got, 3, 3)
    require_tensor(got, [3, 3], torch.bool, "causal_mask(3, 3)", why)
    _require_mask(got, ["100", "110", "111"], "causal_mask(3, 3)", why)
    yield "three tokens see one, two and three"

    got = call(causal_mask, 2, 5)
    why = usual_reason(mutants, got, 2, 5)
    require_tensor(got, [2, 5], torch.bool, "causal_mask(2, 5)", why)
    _require_mask(got, ["11110", "11111"], "causal_mask(2, 5)", why)
    _require_mask(call(causal_mask, 1, 4), ["1111"], "causal_mask(1, 4)", why)
    yield "with a cache the queries are the last ones"

    elsewhere = meta_device()
    got = call(causal_mask, 2, 3, elsewhere)
    if not isinstance(got, torch.Tensor) or got.device != elsewhere:
        why = usual_reason(mutants, got, 2, 3, elsewhere)
        raise Mistake("Asked for a mask on one device, causal_mask makes it on another.", why)
    yield "on the device that was asked for"


def _require_mask(got: torch.Tensor, rows: list[str], what: str, why: str) -> None:
    written = ["".join(str(int(seen)) for seen in row) for row in got.tolist()]
    if written != rows:
        raise Mistake(f"{what} has the rows {', '.join(written)}; wanted {', '.join(rows)}.", why)


def check_attend(attend: Part) -> Iterator[str]:
    """Shape, the causal average by hand, grouping, scale, random heads, masks, dtypes, gradients."""
    inputs = (
        random_normal(3, 4, 5, 6),
        random_normal(3, 2, 7, 6, seed=3),
        random_normal(3, 2, 7, 6, seed=2),
    )
    got = call(attend, *inputs, None)
    require_tensor(got, [3, 4, 5, 6], torch.float32, "attend")
    why = usual_reason(MUTANTS["attend"], got, *inputs, None)
    yield "an answer for each head of each query"

    yield from _check_by_hand(attend, why)
    _require_head_by_head(attend, inputs, None)
    yield from _check_mask(attend, inputs)
    yield from _check_types(attend)


def _check_by_hand(attend: Part, why: str) -> Iterator[str]:
    # A query of zeros scores every key alike, so it gets the average of what it sees.
    values = torch.arange(1.0, 6.0).view(1, 1, 5, 1).expand(1, 1, 5, 2)
    got = call(attend, torch.zeros(1, 1, 3, 2), random_normal(1, 1, 5, 2), values, None)
    _require(
        got[..., 0], [2.0, 2.5, 3.0], "The last 3 of 5 queries see 3, 4 and 5 values of 1 … 5", why
    )
    low = torch.full((1, 1, 3, 2), 20.0), torch.full((1, 1, 5, 2), -40.0), values
    got = call(attend, *low, None)
    known = usual_reason(MUTANTS["attend"], got, *low, None)
    _require(got[..., 0], [2.0, 2.5, 3.0], "The same where all scores are -1,131", known)
    yield "a query sees itself and what came before, also after a cache"

    # A score of 40 leaves nothing for one of 0, so it shows which key head was read.
    keys = torch.tensor([[0.0, 20.0], [20.0, 0.0]]).view(1, 2, 2, 1).expand(1, 2, 2, 2)
    values = torch.tensor([[10.0, 11.0], [20.0, 21.0]]).view(1, 2, 2, 1).expand(1, 2, 2, 2)
    got = call(attend, torch.ones(1, 4, 1, 2), keys, values, None)
    what = "Key head 0 points to the value 11, key head 1 to the value 20, for two query heads each"
    _require(got[..., 0], [11.0, 11.0, 20.0, 20.0], what, why)
    yield "query heads share key and value heads in groups"

    query = torch.tensor([2.0, 0.0, 0.0, 0.0]).expand(1, 2, 1, 4)
    keys = torch.tensor([[0.0] * 4, [math.log(3.0), 0.0, 0.0, 0.0]]).view(1, 1, 2, 4)
    got = call(attend, query, keys, _ZERO_AND_ONE, None)
    _require(got, [0.75] * 8, "Scores 0 and log 3 weigh 1/4 and 3/4, the values 0 and 1", why)
    yield "scores are divided by √H: weights of 1/4 and 3/4 come out"


def _require_head_by_head(
    attend: Part, inputs: tuple[torch.Tensor, ...], mask_B1TS: torch.Tensor | None
) -> None:
    """Compares random texts with the formula, one head at a time."""
    got = call(attend, *inputs, mask_B1TS)
    why = usual_reason(MUTANTS["attend"], got, *inputs, mask_B1TS)
    what = "Random texts" if mask_B1TS is None else "Random texts, each with a mask of its own"
    require_tensor(got, inputs[0].shape, torch.float32, f"attend ({what})", why)
    q, k, v = (x.double() for x in inputs)
    seen = _CAUSAL_TS if mask_B1TS is None else mask_B1TS[:, 0]
    heads = []
    for n in range(4):
        scores_BTS = q[:, n] @ k[:, n // 2].mT / math.sqrt(6)
        heads.append(scores_BTS.masked_fill(~seen, -math.inf).softmax(-1) @ v[:, n // 2])
    want = torch.stack(heads, dim=1).float()
    if not same(got, want, 1e-4):
        off_BNT = (got - want).abs().amax(-1)
        text, head, token = (int(i) for i in torch.unravel_index(off_BNT.argmax(), off_BNT.shape))
        raise Mistake(
            f"{what}: in text {text}, head {head} answers query {token} with "
            f"{numbers(got[text, head, token])}; wanted {numbers(want[text, head, token])}.",
            why
            or "Each text has its own keys, values and mask; each head n reads key head n // (N/K).",
        )


def _check_mask(attend: Part, inputs: tuple[torch.Tensor, ...]) -> Iterator[str]:
    mask_TS = torch.zeros(5, 7, dtype=torch.bool)
    mask_TS[:, 2] = True
    got = call(attend, *inputs, mask_TS)
    want = inputs[2][:, :, 2:3].repeat_interleave(2, dim=1).expand(3, 4, 5, 6)
    if not same(got, want.contiguous()):
        raise Mistake(
            "Where the mask shows only position 2, the answer isn't the value at position 2.",
            usual_reason(MUTANTS["attend"], got, *inputs, mask_TS)
            or "True in the mask means that the query may look there.",
        )
    # As many texts as key heads: there a mask that meets the wrong dimension raises no error.
    mask_B1TS = _CAUSAL_TS.repeat(2, 1, 1, 1)
    mask_B1TS[0, :, :, 1] = mask_B1TS[1, :, :, 0] = False
    mask_B1TS[1, :, 0, -1] = True  # a look ahead, which the causal mask would forbid
    _require_head_by_head(attend, tuple(x[:2] for x in inputs), mask_B1TS)
    yield "a mask that is given decides what is seen"


def _check_types(attend: Part) -> Iterator[str]:
    loud = torch.full((1, 1, 3, 4), 200.0).half()
    values = torch.tensor([1.0, 2.0, 3.0]).half().view(1, 1, 3, 1).expand(1, 1, 3, 4)
    got = call(attend, loud, loud, values, None)
    why = usual_reason(MUTANTS["attend"], got, loud, loud, values, None)
    require_tensor(got, [1, 1, 3, 4], torch.float16, "attend of float16 tensors", why)
    _require(got[..., 0].float(), [1.0, 1.5, 2.0], "In float16, with 200s for q and k", why, 2e-3)
    _require_fine_scores(attend)
    leaves = {
        "q": random_normal(1, 2, 3, 4).requires_grad_(),
        "k": random_normal(1, 1, 3, 4, seed=1).requires_grad_(),
        "v": random_normal(1, 1, 3, 4, seed=2).requires_grad_(),
    }
    require_gradient(call(attend, *leaves.values(), None), leaves, "attend")
    yield "large scores don't overflow, and gradients reach q, k and v"


def _require_fine_scores(attend: Part) -> None:
    """Scores of 1000 and 1002, which bfloat16 can't tell apart."""
    query = torch.tensor([2.0, 2.0, 0.0, 0.0]).bfloat16().expand(1, 1, 1, 4)
    keys = torch.tensor([[1000.0, 0.0, 0.0, 0.0], [1000.0, 2.0, 0.0, 0.0]]).bfloat16()
    inputs = query, keys.view(1, 1, 2, 4), _ZERO_AND_ONE.bfloat16()
    got = call(attend, *inputs, None)
    why = usual_reason(MUTANTS["attend"], got, *inputs, None)
    require_tensor(got, [1, 1, 1, 4], torch.bfloat16, "attend of bfloat16 tensors", why)
    want = 1 / (1 + math.exp(-2))
    what = "In bfloat16, scores 1000 and 1002 for the values 0 and 1"
    _require(got.float(), [want] * 4, what, why, 1e-2)


def _require(
    got: torch.Tensor, want: list[float], what: str, why: str, tolerance: float = 1e-5
) -> None:
    if not same(got.flatten(), torch.tensor(want), tolerance):
        raise Mistake(f"{what}: wanted {numbers(torch.tensor(want))}, got {numbers(got)}.", why)
