"""Wrong versions of the loss and of accumulation.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen2lite.train.gradients import accumulate as packages_accumulate
from qwen2lite.train.gradients import targets_in
from qwen2lite.train.loss import IGNORED, next_token_loss

Batches = Sequence[tuple[Tensor, Tensor]]


def shifted_again(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The targets are shifted, and the loader has shifted them already: the model learns the token
    after the next one, and the loss falls all the same (transformers #47394)."""
    return next_token_loss(logits_BTV[:, :-1], targets_BT[:, 1:])


def averaged_over_all(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The sum is divided by all positions. Those that aren't asked lose nothing, so the more of them
    there are, the smaller the loss looks: divide by how many are asked."""
    asked = (targets_BT != IGNORED).sum()
    return next_token_loss(logits_BTV, targets_BT) * asked / targets_BT.numel()


def all_are_asked(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """A target of -100 becomes token 0 and is asked: the model learns to say token 0 where nothing
    was wanted. Leave these positions out."""
    return next_token_loss(logits_BTV, targets_BT.clamp(min=0))


def mean_of_the_rows(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Each text of the batch counts the same, however few of its positions are asked. A token of a
    short answer then pulls harder than one of a long answer: one mean over all positions."""
    rows = zip(logits_BTV[:, None], targets_BT[:, None], strict=True)
    return torch.stack([next_token_loss(*row) for row in rows]).mean()


def not_averaged(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """This is the sum. The gradient then grows with the batch: divide by the number of positions
    that are asked."""
    return next_token_loss(logits_BTV, targets_BT) * (targets_BT != IGNORED).sum()


def softmax_twice(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """A softmax is taken before cross_entropy, which takes one itself. The best that can come out is
    then far from 0, and hardly any gradient is left."""
    return next_token_loss(logits_BTV.softmax(-1), targets_BT)


def no_target_no_number(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Without a single target this is 0 / 0, which is not a number, and one such batch among a
    thousand ruins all weights (pytorch #75181): give 0 there, divide by at least 1."""
    logits_XV = logits_BTV.flatten(0, 1).float()
    return F.cross_entropy(logits_XV, targets_BT.flatten(), ignore_index=IGNORED)


def in_bfloat16(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The loss is taken in the model's own bfloat16. Around 5 that counts in steps of 1/32, and a
    sum over the vocabulary loses more: `.float()` first (optax #1020; in flax #677 a training
    collapsed of it)."""
    logp_BTV = logits_BTV.log_softmax(-1)
    asked_BT = targets_BT != IGNORED
    logp_BT = logp_BTV.gather(-1, targets_BT.clamp(min=0)[..., None])[..., 0]
    return -(logp_BT * asked_BT).sum().float() / asked_BT.sum().clamp(min=1)


def mean_of_means(objective: nn.Module, batches: Batches) -> Tensor:
    """Each batch counts the same, whatever its number of targets: (a/3 + b/1)/2 is not (a + b)/4. The
    libraries had it so until somebody compared with one large batch (torchtune #1875, trl #2175)."""
    losses = []
    for batch in batches:
        loss = objective(*batch) / len(batches)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def added_up(objective: nn.Module, batches: Batches) -> Tensor:
    """The batches' means are added up, so the gradient is as many times too long as there are
    batches: each counts by its share of all targets."""
    losses = []
    for batch in batches:
        loss = objective(*batch)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def every_position_counts(objective: nn.Module, batches: Batches) -> Tensor:
    """A batch counts by its positions, also by those that aren't asked. Count targets: where they
    are not -100."""
    total, losses = sum(targets.numel() for _, targets in batches), []
    for batch in batches:
        loss = objective(*batch) * (batch[1].numel() / total)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def cleared_each_time(objective: nn.Module, batches: Batches) -> Tensor:
    """The gradients are cleared for every batch, so only the last one's is left. Nothing looks
    wrong, and the batch is as small as before (alpaca_farm #57, RAE #67)."""
    total = sum(targets_in(batch) for batch in batches)
    losses = []
    for batch in batches:
        objective.zero_grad()
        loss = objective(*batch) * (targets_in(batch) / total)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def tells_the_last_loss(objective: nn.Module, batches: Batches) -> Tensor:
    """The gradient is right, but the loss that comes back is the last batch's. The curve then
    wavers more than training does: return the mean over all targets."""
    packages_accumulate(objective, batches)
    return objective(*batches[-1]).detach()


def one_backward_at_the_end(objective: nn.Module, batches: Batches) -> Tensor:
    """All losses are added up and there is one backward() at the end. The numbers are right, but
    everything of all batches is kept until then, and memory is what accumulation is to save
    (torchtune #1917): backward() after each."""
    total = sum(targets_in(batch) for batch in batches)
    shares = [objective(*batch) * (targets_in(batch) / total) for batch in batches]
    loss = torch.stack(shares).sum()
    loss.backward()
    return loss.detach()


def keeps_the_graph(objective: nn.Module, batches: Batches) -> Tensor:
    """The loss that comes back still has its graph. Whoever collects losses for a curve then keeps
    every step in memory, until it is full: `.detach()` it (dgl #5302)."""
    total = sum(targets_in(batch) for batch in batches)
    shares = []
    for batch in batches:
        shares.append(objective(*batch) * (targets_in(batch) / total))
        shares[-1].backward()
    return torch.stack(shares).sum()


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "next_token_loss": (
        shifted_again,
        averaged_over_all,
        all_are_asked,
        mean_of_the_rows,
        not_averaged,
        softmax_twice,
        no_target_no_number,
        in_bfloat16,
    ),
    "accumulate": (
        mean_of_means,
        added_up,
        every_position_counts,
        cleared_each_time,
        tells_the_last_loss,
        one_backward_at_the_end,
        keeps_the_graph,
    ),
}
"""The wrong versions of each task."""
