"""Wrong answers to the other tasks of the exercise 74_ppo: which tokens were chosen, and a whole step.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.align.ppo_loss import advantages, policy_loss, token_rewards, value_loss
from qwen2lite.learn.checks.ppo_world import table_logp
from qwen2lite.train.loss import IGNORED

Chosen = tuple[list[int], list[int]]
Tables = tuple[Tensor, Tensor]


def _row(prompt: Sequence[int], said: Sequence[int]) -> Chosen:
    return [*prompt, *said], [IGNORED] * (len(prompt) - 1) + [*said, IGNORED]


def right_tokens(prompt: Sequence[int], said: Sequence[int], limit: int, end: int) -> Chosen:
    """A right answer, which the mutants change."""
    return _row(prompt, [*said, end] if len(said) < limit else said)


def stop_not_learnt(prompt: Sequence[int], said: Sequence[int], limit: int, end: int) -> Chosen:
    """The token that ends the answer has no target. The policy chose it as it chose the others,
    and it was right or wrong to stop there: without a target it never learns when."""
    ids, targets = right_tokens(prompt, said, limit, end)
    cut = len(said) == limit
    return ids, targets if cut else [*targets[:-2], IGNORED, IGNORED]


def stop_missing(prompt: Sequence[int], said: Sequence[int], limit: int, end: int) -> Chosen:
    """The token that ends the answer is missing. Generation leaves it out of what it returns, but
    the policy chose it, unless the answer was cut off: put it back."""
    return _row(prompt, said)


def always_ended(prompt: Sequence[int], said: Sequence[int], limit: int, end: int) -> Chosen:
    """An answer that was cut off gets an end that the policy never chose. With as many tokens as
    allowed it was stopped from outside: nothing is learnt there."""
    return _row(prompt, [*said, end])


def cut_off_ignored(prompt: Sequence[int], said: Sequence[int], limit: int, end: int) -> Chosen:
    """Nothing is learnt of an answer that was cut off. Its tokens were chosen like any other, and
    it gets a low score; only the end that it lacks must not be learnt."""
    ids, targets = right_tokens(prompt, said, limit, end)
    return ids, [IGNORED] * len(ids) if len(said) == limit else targets


def prompt_learnt(prompt: Sequence[int], said: Sequence[int], limit: int, end: int) -> Chosen:
    """The prompt's tokens have targets. The policy didn't choose them, so nothing about them is
    its merit or its fault."""
    ids, targets = right_tokens(prompt, said, limit, end)
    return ids, [*prompt[1:], *targets[len(prompt) - 1 :]]


def not_moved(prompt: Sequence[int], said: Sequence[int], limit: int, end: int) -> Chosen:
    """Each target stands at its own token. It belongs one place before it, where the policy had
    read what came so far and chose what comes next."""
    ids, targets = right_tokens(prompt, said, limit, end)
    return ids, [IGNORED, *targets[:-1]]


def first_missed(prompt: Sequence[int], said: Sequence[int], limit: int, end: int) -> Chosen:
    """The answer's first token has no target. It was chosen at the prompt's last token, so its
    target stands there."""
    ids, targets = right_tokens(prompt, said, limit, end)
    return ids, [IGNORED] * len(prompt) + targets[len(prompt) :]


def reference_for_before(
    policy_VV: Tensor,
    value_V: Tensor,
    reference_VV: Tensor,
    ids_BT: Tensor,
    targets_BT: Tensor,
    score_B: Tensor,
) -> tuple[Tensor, Tensor]:
    """The ratio compares with the reference, so that the policy never gets further than ε away
    from it: the score climbs a little and stands still. The reference is for KL. The ratio
    compares with the policy that wrote the answers, as it was before the first pass."""
    said_BT = targets_BT != IGNORED
    expected_BT = value_V[ids_BT] * said_BT
    reference_BT = table_logp(reference_VV, ids_BT, targets_BT)
    gain_BT = table_logp(policy_VV, ids_BT, targets_BT) - reference_BT
    rewards_BT = token_rewards(score_B, gain_BT, said_BT, kl=0.04)
    ahead_BT = advantages(rewards_BT, expected_BT, said_BT, decay=0.95)
    expected, before, ahead = (x[said_BT] for x in (expected_BT, reference_BT, ahead_BT))
    returns = ahead + expected
    ahead = (ahead - ahead.mean()) / (ahead.std(correction=0) + 1e-8)

    policy_VV, value_V = (table.clone().requires_grad_() for table in (policy_VV, value_V))
    optimizer = torch.optim.SGD((policy_VV, value_V), lr=2.0)
    for _ in range(4):
        logp = table_logp(policy_VV, ids_BT, targets_BT)[said_BT]
        values = value_V[ids_BT][said_BT]
        loss = policy_loss(logp, before, ahead, clip=0.2)
        loss = loss + value_loss(values, expected, returns, clip=0.15)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy_VV.detach(), value_V.detach()


Seen = dict[str, Tensor]
"""What is known of the answers as they were written, and `said`, where there is a token."""


def _seen(
    policy_VV: Tensor, value_V: Tensor, reference_VV: Tensor, ids_BT: Tensor, targets_BT: Tensor,
    score_B: Tensor,
) -> Seen:  # fmt: skip
    with torch.no_grad():
        said_BT = targets_BT != IGNORED
        before_BT = table_logp(policy_VV, ids_BT, targets_BT)
        gain_BT = before_BT - table_logp(reference_VV, ids_BT, targets_BT)
        expected_BT = value_V[ids_BT] * said_BT
        rewards_BT = token_rewards(score_B, gain_BT, said_BT, 0.04)
        ahead_BT = advantages(rewards_BT, expected_BT, said_BT, 0.95)
        returns_BT = ahead_BT + expected_BT
    ahead_BT = torch.zeros_like(ahead_BT).masked_scatter(said_BT, _scaled(ahead_BT[said_BT]))
    return {
        "said": said_BT, "before": before_BT, "expected": expected_BT, "ahead": ahead_BT,
        "returns": returns_BT,
    }  # fmt: skip


def _scaled(ahead: Tensor) -> Tensor:
    return (ahead - ahead.mean()) / (ahead.std(correction=0) + 1e-8)


def _loss(logp_BT: Tensor, values_BT: Tensor, seen: Seen, where: Tensor) -> Tensor:
    logp, before, ahead = (x[where] for x in (logp_BT, seen["before"], seen["ahead"]))
    values, expected, returns = (x[where] for x in (values_BT, seen["expected"], seen["returns"]))
    return policy_loss(logp, before, ahead, 0.2) + value_loss(values, expected, returns, 0.15)


def _over_tokens(logp_BT: Tensor, values_BT: Tensor, seen: Seen) -> Tensor:
    return _loss(logp_BT, values_BT, seen, seen["said"])


def stepped(
    inputs: Sequence[Tensor],
    anew: Sequence[str] = (),
    change: Callable[[Seen], Seen] = lambda seen: {},
    loss: Callable[[Tensor, Tensor, Seen], Tensor] = _over_tokens,
) -> Tables:
    """Both tables after a step, which is right as long as nothing but the inputs is given.

    Args:
        inputs: of the task.
        anew: what is computed once more in each pass.
        change: what is taken for what is known before the first pass.
        loss: of a pass.
    """
    policy_VV, value_V = (table.clone().requires_grad_() for table in inputs[:2])
    reference_VV, ids_BT, targets_BT, score_B = inputs[2:]
    seen = _seen(policy_VV, value_V, *inputs[2:])
    seen |= change(seen)
    optimizer = torch.optim.SGD((policy_VV, value_V), lr=2.0)
    for _ in range(4):
        now = _seen(policy_VV, value_V, reference_VV, ids_BT, targets_BT, score_B)
        seen = seen | {name: now[name] for name in anew}
        logp_BT = table_logp(policy_VV, ids_BT, targets_BT)
        optimizer.zero_grad()
        loss(logp_BT, value_V[ids_BT] * seen["said"], seen).backward()
        optimizer.step()
    return policy_VV.detach(), value_V.detach()


def before_anew(*inputs: Tensor) -> Tables:
    """`before` is computed in each pass. Then it belongs to a policy that has moved already, the
    ratio is 1 every time, and nothing is ever clipped (as in a tutorial, higgsfield #20). It
    belongs to the policy that wrote the answers: once, before the first pass."""
    return stepped(inputs, anew=["before"])


def advantages_anew(*inputs: Tensor) -> Tables:
    """Advantages and returns are computed in each pass, by a value model that has moved and so
    explains its own surprises away. They belong to the models as they were when the answers were
    written."""
    return stepped(inputs, anew=["expected", "ahead", "returns"])


def all_anew(*inputs: Tensor) -> Tables:
    """All that is known of the answers is computed in each pass, by models that have moved
    already. What was thought when they were written is computed once, before the first pass; only
    `logp` and `values` are new in each."""
    return stepped(inputs, anew=["before", "expected", "ahead", "returns"])


def before_attached(*inputs: Tensor) -> Tables:
    """The policy hasn't moved at all. `before` is the same tensor as `logp`, and its gradient
    takes back that of `logp`. Compute it once, before the first pass, and detach it."""

    def still(logp_BT: Tensor, values_BT: Tensor, seen: Seen) -> Tensor:
        return _over_tokens(logp_BT, values_BT, seen | {"before": logp_BT})

    return stepped(inputs, loss=still)


def padding_scaled(*inputs: Tensor) -> Tables:
    """Advantages are shifted and scaled with the zeros of the padding among them, so their mean
    isn't 0 over tokens. Pick the tokens first, then take mean and standard deviation."""
    return stepped(
        inputs, change=lambda seen: {"ahead": _scaled(seen["returns"] - seen["expected"])}
    )


def padding_in_the_losses(*inputs: Tensor) -> Tables:
    """The losses are means over all places, with padding and prompts among them: the longer the
    longest answer of a batch, the less a token counts. Pick the tokens first."""

    def everywhere(logp_BT: Tensor, values_BT: Tensor, seen: Seen) -> Tensor:
        return _loss(logp_BT, values_BT, seen, torch.ones_like(seen["said"]))

    return stepped(inputs, loss=everywhere)


def rows_averaged(*inputs: Tensor) -> Tables:
    """The loss is averaged within each answer first. A token of a long answer counts less then
    than one of a short one. Average once, over all tokens."""

    def by_rows(logp_BT: Tensor, values_BT: Tensor, seen: Seen) -> Tensor:
        lines = torch.eye(len(logp_BT), dtype=torch.bool)[:, :, None] & seen["said"]
        return torch.stack([_loss(logp_BT, values_BT, seen, line) for line in lines]).mean()

    return stepped(inputs, loss=by_rows)


def scaled_returns(*inputs: Tensor) -> Tables:
    """The value model learns from advantages that have been shifted and scaled already. Its
    returns are in the reward's own unit: compute them before."""
    return stepped(inputs, change=lambda seen: {"returns": seen["ahead"] + seen["expected"]})


def returns_of_surprises(*inputs: Tensor) -> Tables:
    """The value model is to say the advantages. What it should have said is A + V: what it said,
    and by how much it was wrong."""
    return stepped(inputs, change=lambda seen: {"returns": seen["returns"] - seen["expected"]})


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "chosen_tokens": (
        stop_not_learnt, stop_missing, always_ended, cut_off_ignored, prompt_learnt, not_moved,
        first_missed,
    ),
    "mended_step": (
        reference_for_before, before_anew, advantages_anew, all_anew, before_attached,
        padding_scaled, padding_in_the_losses, rows_averaged, scaled_returns, returns_of_surprises,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
