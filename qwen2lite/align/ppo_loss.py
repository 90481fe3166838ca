r"""What PPO learns from: rewards token by token, by how much each was better than expected, two losses.

Every tensor here has one number a token of an answer, at the place before it, where the policy chose
it; 0 elsewhere. The tokens of an answer stand side by side, and its `<|im_end|>` is one of them.
"""

import torch


def token_rewards(
    score_B: torch.Tensor, gain_BT: torch.Tensor, said_BT: torch.Tensor, kl: float
) -> torch.Tensor:
    r"""What each token earns: the answer's score falls due at its last one, and each pays for $kl$.

    $r_t = -kl \cdot \ln\frac{\pi(a_t)}{\pi_{ref}(a_t)}$, which is a gain where the policy took what
    the reference finds likelier. Over all that a policy writes, the mean of the payment is the
    divergence KL(π‖π_ref), never below 0.

    Args:
        score_B: how good each answer is.
        gain_BT: ln π − ln π_ref of each token.
        said_BT: where there is one; each row has one at least.
        kl: what a nat costs, 0 or more.

    Source: arXiv 1909.08593, section 2; per token, arXiv 2203.02155, section 3.5.
    """
    rewards_BT = -kl * gain_BT * said_BT
    last_B = said_BT.shape[1] - 1 - said_BT.flip(1).int().argmax(1)
    rewards_BT[torch.arange(len(score_B), device=last_B.device), last_B] += score_B
    return rewards_BT


def advantages(
    rewards_BT: torch.Tensor, values_BT: torch.Tensor, said_BT: torch.Tensor, decay: float
) -> torch.Tensor:
    r"""By how much what followed each token was better than the value model expected (GAE).

    $\delta_t = r_t + V_{t+1} - V_t$, the surprise of one token, and $A_t = \delta_t + \lambda A_{t+1}$.
    With λ = 1 that is what was earned from here on, less $V_t$: unbiased, and as noisy as all the
    tokens that follow. With λ = 0 it is one surprise, and as wrong as the value model. After the last
    token there is nothing to expect. A reward counts the same however late it comes (γ = 1).

    Args:
        rewards_BT: from `token_rewards`.
        values_BT: what the value model expects before each token.
        said_BT: where there is a token.
        decay: λ, from 0 to 1.

    Returns:
        A_BT, without a gradient; A + V is what the value model should have said.

    Source: arXiv 1506.02438, eq. 16.
    """
    values_BT = (values_BT * said_BT).detach()
    advantages_BT = torch.zeros_like(values_BT)
    later_B = after_B = torch.zeros_like(values_BT[:, 0])
    for t in reversed(range(values_BT.shape[1])):
        surprise_B = rewards_BT[:, t] + after_B - values_BT[:, t]
        later_B = (surprise_B + decay * later_B) * said_BT[:, t]
        advantages_BT[:, t], after_B = later_B, values_BT[:, t]
    return advantages_BT


def policy_loss(
    logp: torch.Tensor, before: torch.Tensor, advantage: torch.Tensor, clip: float
) -> torch.Tensor:
    r"""The mean of $-\min(\rho A, \text{clip}(\rho, 1-\epsilon, 1+\epsilon)\,A)$ over tokens.

    ρ is how much likelier the policy finds the token than when it wrote it. Where a good token has
    become likelier by ε already, or a bad one rarer, nothing more is to be gained and there is no
    gradient. What went the *wrong* way isn't clipped, so it can always come back. In the first pass
    over new answers ρ is 1 and nothing is clipped.

    Args:
        logp: ln π of the tokens.
        before: the same when they were written.
        advantage: one a token.
        clip: ε, above 0.

    Source: arXiv 1707.06347, eq. 7.
    """
    ratio = (logp - before).exp()
    return -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def value_loss(
    values: torch.Tensor, before: torch.Tensor, returns: torch.Tensor, clip: float
) -> torch.Tensor:
    r"""The mean of half the squared error, the larger of V's and of V's within ±clip of before.

    So an expectation that has moved by `clip` towards its target has no gradient until the next
    answers; one that moved away from it has.

    Args:
        values: what the value model expects now.
        before: what it expected when the answers were written.
        returns: what came.
        clip: in units of the reward, above 0.

    Source: the clip of 0.15, arXiv 2309.16609, section 3.2.2, which has no formula; this is the usual
    one.
    """
    near = before + (values - before).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns).square(), (near - returns).square()).mean()
