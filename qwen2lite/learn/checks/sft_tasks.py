"""What the other tasks of the exercise 71_sft ask: a share, whole conversations in rows, the loss."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.checks.sft import is_ids, outlined
from qwen2lite.learn.contract import (
    Mistake,
    call,
    one_number,
    random_normal,
    require_gradient,
    require_tensor,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import sft_tasks as mutants
from qwen2lite.learn.mutants.sft_tasks import MUTANTS
from qwen2lite.train.loss import IGNORED

Part = Callable[..., Any]


def check_share_learnt(share_learnt: Part) -> Iterator[str]:
    """By hand, with the id 0, nothing learnt, all learnt."""
    skip = IGNORED
    for targets, what in (
        ([skip, skip, skip, 7], "one of four"),
        ([skip, 0, 5, skip, skip], "two of five, and one of them is the token 0"),
        ([skip, skip], "nothing is learnt"),
        ([3, 4, 5], "all is learnt"),
    ):
        got = one_number(call(share_learnt, targets), "share_learnt")
        want = sum(target != skip for target in targets) / len(targets)
        if not abs(got - want) < 1e-6:
            raise Mistake(
                f"Of the targets {targets} the share {want:g} is learnt, and yours is {got:g}.",
                _reason_for_number("share_learnt", got, targets),
            )
        yield f"{what}: {want:g}"


def _reason_for_number(task: str, got: float, *inputs: Any) -> str:
    known = (m for m in MUTANTS[task] if math.isclose(m(*inputs), got, rel_tol=1e-5))
    return next(map(told_by, known), "")


def check_fill_rows(fill_rows: Part) -> Iterator[str]:
    """By hand: rows that are exactly full, that one token overfills, and gaps behind."""
    for lengths, room, want, what in (
        ([5, 3, 9, 2], 10, [[0, 1], [2], [3]], "two with their ends fill a row"),
        ([4, 3, 3], 10, [[0, 1], [2]], "three would need 13 places"),
        ([6, 8, 1], 10, [[0], [1], [2]], "in order, each in one piece"),
        ([1, 1, 1, 1, 1, 7], 8, [[0, 1, 2, 3], [4], [5]], "rows of four, of one and of one"),
    ):
        got = call(fill_rows, lengths, room)
        mine = _rows(got)
        if mine != want:
            raise Mistake(
                f"Conversations of {lengths} tokens, rows of {room}: the rows hold {mine}, and "
                f"{want} was wanted.",
                usual_reason(MUTANTS["fill_rows"], mine, lengths, room),
            )
        yield f"{lengths} in rows of {room}: {what}"


def _rows(got: Any) -> list[list[int]]:
    if not isinstance(got, list | tuple) or not all(map(is_ids, got)):
        raise Mistake(
            f"fill_rows returned {outlined(got)}; a list of rows was wanted, each a list of numbers."
        )
    return [list(row) for row in got]


def check_asked_loss(asked_loss: Part) -> Iterator[str]:
    """By hand, against a sum position by position, where nothing is asked, and in bfloat16."""
    logits_TV, targets_T = random_normal(6, 7), torch.tensor([3, IGNORED, 0, IGNORED, IGNORED, 5])
    by_hand = torch.zeros(2, 4), torch.tensor([IGNORED, 2])
    _require_loss(asked_loss, *by_hand, math.log(4), "One of two positions asked, p = 1/4")
    yield f"one of two positions is asked, four tokens equally likely: ln 4 = {math.log(4):.4f}"
    want = _loss_by_position(logits_TV, targets_T)
    _require_loss(asked_loss, logits_TV, targets_T, want, "Three of six positions asked")
    yield "a mean over the positions that are asked"
    scores_TV = logits_TV.clone().requires_grad_()
    require_gradient(asked_loss(scores_TV, targets_T), {"the logits": scores_TV}, "asked_loss")
    yield "the gradient comes through"
    nothing = logits_TV, torch.full((6,), IGNORED)
    _require_loss(asked_loss, *nothing, 0.0, "No position asked")
    yield "0 where nothing is asked"
    narrow = (8 * random_normal(6, 50, seed=1)).bfloat16(), torch.tensor([4, 3, IGNORED, 2, 1, 0])
    _require_loss(asked_loss, *narrow, _loss_by_position(*narrow), "Logits in bfloat16", _NARROW)
    yield "in float32, also where the logits are bfloat16"


def _loss_by_position(logits_TV: Tensor, targets_T: Tensor) -> float:
    pairs = enumerate(targets_T.tolist())
    logp_TV = logits_TV.double().log_softmax(-1)
    losses = [-float(logp_TV[place, token]) for place, token in pairs if token != IGNORED]
    return sum(losses) / len(losses)


_NARROW = told_by(mutants.in_16_bits)


def _require_loss(
    part: Part, logits_TV: Tensor, targets_T: Tensor, want: float, what: str, usual: str = ""
) -> None:
    got = call(part, logits_TV, targets_T, name="asked_loss")
    reason = usual_reason(MUTANTS["asked_loss"], got, logits_TV, targets_T) or usual
    require_tensor(got, [], torch.float32, "asked_loss", reason)
    if not abs(got.item() - want) <= 1e-4 * max(1.0, want):
        wrong = f"{what}: the loss is {want:.4f}, and yours is {got.item():.4f}."
        raise Mistake(wrong, reason)


def check_mended_mean(mended_mean: Part) -> Iterator[str]:
    """By hand: with a batch without targets, without, and one that outweighs the others."""
    for losses, counts, want in (
        ([2.0, 1.0, 0.0], [1, 3, 0], 1.25),
        ([2.0, 1.0], [1, 3], 1.25),
        ([4.0, 0.5, 1.0], [2, 6, 12], 1.15),
    ):
        got = one_number(call(mended_mean, losses, counts), "mended_mean")
        if not abs(got - want) < 1e-5:
            raise Mistake(
                f"With losses of {losses} for {counts} targets the mean over all targets is {want:g}, "
                f"and yours is {got:.4g}.",
                _reason_for_number("mended_mean", got, losses, counts),
            )
        yield f"losses {losses}, targets {counts}: {want:g}"
