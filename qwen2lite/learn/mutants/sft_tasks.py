"""Wrong answers to the other tasks of the exercise 71_sft.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from qwen2lite.train.loss import IGNORED


def share_ignored(targets: Sequence[int]) -> float:
    """This is the share that is ignored. What is learnt is the rest."""
    return sum(target == IGNORED for target in targets) / len(targets)


def counted(targets: Sequence[int]) -> float:
    """This is how many are learnt. A share is that, divided by how many positions there are."""
    return sum(target != IGNORED for target in targets)


def zero_left_out(targets: Sequence[int]) -> float:
    """The id 0 isn't counted. It is a token like any other, "!" in Qwen2's vocabulary: compare with
    IGNORED, and don't ask whether a target is above 0."""
    return sum(target > 0 for target in targets) / len(targets)


def end_forgotten(lengths: Sequence[int], room: int) -> list[list[int]]:
    """The token <|endoftext|> after each conversation isn't counted, and rows get longer than they may:
    each takes its length plus 1."""
    return _filled(lengths, room, ending=0)


def exactly_full_refused(lengths: Sequence[int], room: int) -> list[list[int]]:
    """A conversation that would fill the row to its last place begins a new one. It fits: a row may be
    full, only not more than full."""
    return _filled(lengths, room - 1)


def last_row_lost(lengths: Sequence[int], room: int) -> list[list[int]]:
    """The last row is missing. If a row is kept only when the next one begins, the last never is: keep
    it after the loop."""
    return _filled(lengths, room)[:-1]


def misfits_lost(lengths: Sequence[int], room: int) -> list[list[int]]:
    """The conversation that doesn't fit is lost: a new row begins, and it isn't put there."""
    rows: list[list[int]] = [[]]
    used = 0
    for number, length in enumerate(lengths):
        if used + length < room:
            rows[-1].append(number)
            used += length + 1
        else:
            rows.append([])
            used = 0
    return [row for row in rows if row]


def gaps_filled(lengths: Sequence[int], room: int) -> list[list[int]]:
    """A short conversation goes back into the gap of an earlier row. That fills rows better and is a
    good idea elsewhere; here a row is done when the next one begins."""
    rows: list[list[int]] = []
    for number, length in enumerate(lengths):
        open_rows = [row for row in rows if sum(lengths[n] + 1 for n in row) + length < room]
        if not open_rows:
            open_rows = [[]]
            rows += open_rows
        open_rows[0].append(number)
    return rows


def cut_at_the_end(lengths: Sequence[int], room: int) -> list[list[int]]:
    """A conversation is cut where the row ends and goes on in the next, as documents in pre-training
    do. Its second half would be an answer without its question: keep conversations whole."""
    ends = list(accumulate(length + 1 for length in lengths))
    spans = list(enumerate(zip([0, *ends], ends, strict=False)))
    rows = range(0, ends[-1], room)
    return [[n for n, (begin, end) in spans if begin < row + room and end > row] for row in rows]


def lengths_for_numbers(lengths: Sequence[int], room: int) -> list[list[int]]:
    """These are the lengths of the conversations. Wanted are their numbers, from 0: `enumerate` gives
    both."""
    return [[lengths[number] for number in row] for row in _filled(lengths, room)]


def _filled(lengths: Sequence[int], room: int, ending: int = 1) -> list[list[int]]:
    rows: list[list[int]] = []
    used = room
    for number, length in enumerate(lengths):
        if used + length + ending > room:
            rows.append([])
            used = 0
        rows[-1].append(number)
        used += length + ending
    return rows


def mean_over_all(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """Divided by all positions, also those that aren't asked: the longer the question, the less its
    answer is learnt. Divide by how many are asked."""
    return a_sum(logits_TV, targets_T) / len(targets_T)


def a_sum(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """This is a sum and not a mean: a long answer has a large loss because it is long. Divide by how
    many positions are asked."""
    return F.cross_entropy(logits_TV.float(), targets_T, ignore_index=IGNORED, reduction="sum")


def ignored_as_token_0(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """Where nothing is asked, token 0 is. Such positions belong neither into the sum nor into the
    count; to make another number of IGNORED isn't enough."""
    return F.cross_entropy(logits_TV.float(), targets_T.clamp(min=0))


def nothing_asked_no_number(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """Without a single target this is 0 / 0, which is not a number, and one such batch among a thousand
    ruins all weights (pytorch #75181): divide by at least 1."""
    return F.cross_entropy(logits_TV.float(), targets_T, ignore_index=IGNORED)


def in_16_bits(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """The loss is taken in bfloat16, as the logits came. Around 5 that counts in steps of 1/32, and a
    sum over the vocabulary loses more: turn the logits into float32, and not the result."""
    asked_T = targets_T != IGNORED
    logp_TV = logits_TV.log_softmax(-1)
    logp_T = logp_TV.gather(-1, targets_T.clamp(min=0)[:, None])[:, 0]
    return -(logp_T * asked_T).sum().float() / asked_T.sum().clamp(min=1)


def mean_of_means(losses: Sequence[float], counts: Sequence[int]) -> float:
    """Every batch counts the same, so that a token of a short answer weighs more than one of a long
    answer. Libraries had it so (transformers #24725, trl #2175). Weigh each loss by its count."""
    asked = [loss for loss, count in zip(losses, counts, strict=True) if count > 0]
    return sum(asked) / len(asked)


def empty_batches_too(losses: Sequence[float], counts: Sequence[int]) -> float:
    """Every batch counts the same, even one without a target, whose 0 makes the loss look smaller.
    Weigh each loss by its count."""
    return sum(losses) / len(losses)


def means_for_sums(losses: Sequence[float], counts: Sequence[int]) -> float:
    """The losses are added up and divided by all targets. But each is a mean already; times its count
    it is the sum over its batch again."""
    return sum(losses) / sum(counts)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "share_learnt": (share_ignored, counted, zero_left_out),
    "fill_rows": (
        end_forgotten, exactly_full_refused, last_row_lost, misfits_lost, gaps_filled,
        cut_at_the_end, lengths_for_numbers,
    ),
    "asked_loss": (mean_over_all, a_sum, ignored_as_token_0, nothing_asked_no_number, in_16_bits),
    "mended_mean": (mean_of_means, empty_batches_too, means_for_sums),
}  # fmt: skip
"""The wrong versions of each task."""
