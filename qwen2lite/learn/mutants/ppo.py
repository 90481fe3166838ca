"""Wrong answers to the exercise 74_ppo: rewards token by token, and advantages.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen2lite.align.ppo_loss import advantages, token_rewards


def _at_last(score_B: Tensor, said_BT: Tensor, back: int = 0) -> Tensor:
    """The scores at the answers' last tokens, or some places before, and 0 elsewhere."""
    columns = torch.arange(said_BT.shape[1])
    last_B1 = torch.where(said_BT, columns, -1).amax(1, keepdim=True) - back
    return torch.where(columns == last_B1, score_B[:, None], 0.0)


def kl_earned(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """The sign of KL is turned: the policy is paid for leaving the reference. What it finds
    likelier than the reference does has a gain above 0, and that costs."""
    return token_rewards(score_B, gain_BT, said_BT, -kl)


def kl_forgotten(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """KL is forgotten: the policy may go as far from the reference as it likes. Each token pays
    for its gain, `kl` a nat."""
    return token_rewards(score_B, gain_BT, said_BT, 0.0)


def kl_at_the_end(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """The last token pays for all. The sum is right, but nobody can tell any more which token was
    too far from the reference: each pays for itself."""
    return _at_last(score_B - kl * (gain_BT * said_BT).sum(1), said_BT)


def always_a_cost(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """The size of the gain is taken, without its sign. A token that the reference finds likelier
    than the policy does *earns* something; only on average over what a policy writes is KL above
    0. Some take the size on purpose (trl #1161 asks about it), but then it isn't KL any more."""
    return token_rewards(score_B, gain_BT.abs(), said_BT, kl)


def score_everywhere(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """The score is given for every token, so that a long answer earns it more often. It falls due
    once, at the answer's last token."""
    return (score_B[:, None] - kl * gain_BT) * said_BT


def score_shared(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """The score is divided among the tokens. Nobody knows yet which of them deserve it: it falls
    due whole, at the last token, and the advantages carry it to the front."""
    return (score_B[:, None] / said_BT.sum(1, keepdim=True) - kl * gain_BT) * said_BT


def score_in_last_column(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """The score stands in the row's last column, which is padding where an answer is shorter:
    there no token earns it. Each row's last token is where `said_BT` is True for the last time."""
    rewards_BT = -kl * gain_BT * said_BT
    rewards_BT[:, -1] += score_B
    return rewards_BT


def score_behind_the_end(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """The score stands one place behind the answer's last token, on padding (so did a widely used
    library, trl #3750). Where is `said_BT` True for the last time?"""
    return _at_last(score_B, said_BT, back=-1) - kl * gain_BT * said_BT


def stop_token_left_out(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """The score stands at the last token but one, as if `<|im_end|>` were none. Then what follows
    it is nothing, and nobody learns when to stop. The end is the last token that the policy
    chose, and the score falls due there."""
    return _at_last(score_B, said_BT, back=1) - kl * gain_BT * said_BT


def padding_pays(score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float) -> Tensor:
    """Places without a token pay too. Whatever stands there in `gain_BT`, the reward is 0:
    multiply by `said_BT` (a book's code forgot it, rlhf-book #216)."""
    return _at_last(score_B, said_BT) - kl * gain_BT


def _carried(surprises_BT: Tensor, decay: float, said_BT: Tensor) -> Tensor:
    """A_t = δ_t + λ A_{t+1}, wherever there is a token."""
    return advantages(surprises_BT, torch.zeros_like(surprises_BT), said_BT, decay)


def _next(values_BT: Tensor) -> Tensor:
    return torch.cat((values_BT[:, 1:], torch.zeros_like(values_BT[:, :1])), 1)


def from_the_front(rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float) -> Tensor:
    """It goes from the first token to the last, and so a token gets what came *before* it. A token
    is answerable for what follows: begin at the end."""
    values_BT = values_BT.detach() * said_BT
    surprises_BT = rewards_BT + _next(values_BT) - values_BT
    return _carried(surprises_BT.flip(1), decay, said_BT.flip(1)).flip(1)


def beyond_the_end(rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float) -> Tensor:
    """After an answer's last token something is still expected: the value at a place without a
    token (as in verl #50 and ROLL #447). There is nothing to come. Set those values to 0 first."""
    values_BT = values_BT.detach()
    return _carried(rewards_BT + _next(values_BT) - values_BT, decay, said_BT)


def decay_forgotten(rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float) -> Tensor:
    """λ is forgotten, as if it were 1. What follows a token counts λ times as much with each
    further step: multiply A of the next token by it."""
    return advantages(rewards_BT, values_BT, said_BT, 1.0)


def one_surprise(rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float) -> Tensor:
    """These are only the surprises δ, as with λ = 0. To each, add λ times the advantage of the
    next token."""
    return advantages(rewards_BT, values_BT, said_BT, 0.0)


def next_value_missing(
    rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float
) -> Tensor:
    """The surprise lacks what is expected after the token, V of the next place. Without it a token
    is blamed for all that hasn't come yet."""
    return _carried(rewards_BT - values_BT.detach(), decay, said_BT)


def expectations_decay(
    rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float
) -> Tensor:
    """λ multiplies the next token's value in the surprise. That place is γ's, which is 1 here; λ
    belongs to the next token's advantage."""
    values_BT = values_BT.detach() * said_BT
    return _carried(rewards_BT + decay * _next(values_BT) - values_BT, decay, said_BT)


def surprise_turned(rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float) -> Tensor:
    """The sign is turned: a good surprise counts as a bad one. What came and what is still
    expected, less what was expected before."""
    return -advantages(rewards_BT, values_BT, said_BT, decay)


def returns_given(rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float) -> Tensor:
    """These are A + V, what the value model should have said. The policy learns from A alone: by
    how much it was better than expected."""
    return (advantages(rewards_BT, values_BT, said_BT, decay) + values_BT.detach()) * said_BT


def prompt_judged(rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float) -> Tensor:
    """The prompt gets advantages too. The policy didn't choose its tokens: wherever `said_BT` is
    False A is 0."""
    return advantages(rewards_BT, values_BT * said_BT, torch.ones_like(said_BT), decay)


def attached(rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float) -> Tensor:
    """Advantages carry the value model's gradient. The policy's loss would then move the value
    model, towards lower expectations where a token was good. Take the values through .detach()."""
    return advantages(rewards_BT, values_BT, said_BT, decay) + 0 * values_BT


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "token_rewards": (
        kl_earned, kl_forgotten, kl_at_the_end, always_a_cost, score_everywhere, score_shared,
        score_in_last_column, score_behind_the_end, stop_token_left_out, padding_pays,
    ),
    "advantages": (
        from_the_front, beyond_the_end, decay_forgotten, one_surprise, next_value_missing,
        expectations_decay, surprise_turned, returns_given, prompt_judged, attached,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
