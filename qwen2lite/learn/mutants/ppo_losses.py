"""Wrong answers to the exercise 74_ppo: the policy's loss, and the value model's.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _policy(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    return -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def ratio_upside_down(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """The ratio is upside down: before over now. It should grow where a token has become likelier.
    (Code that keeps −ln p has it the other way round and is right: stable-baselines #447.)"""
    return _policy((before - logp).exp(), advantage, clip)


def exp_forgotten(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """This is the logarithm of the ratio, which is 0 where nothing has moved. The ratio is 1
    there: take exp of the difference."""
    return _policy(logp - before, advantage, clip)


def logs_divided(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Logarithms are divided. The ratio is that of the probabilities, so subtract their logarithms
    and take exp of that."""
    return _policy(logp / before, advantage, clip)


def advantage_clipped(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """The advantage is clipped, and not the ratio. How good a token was may be any number; it's
    the policy that mustn't go further than ε at once."""
    ratio = (logp - before).exp()
    return -torch.min(ratio * advantage, ratio * advantage.clamp(-clip, clip)).mean()


def product_clipped(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """The product of ratio and advantage is clipped. Clip the ratio by itself, to 1 ± ε, and
    multiply by the advantage afterwards."""
    product = (logp - before).exp() * advantage
    return -torch.min(product, product.clamp(1 - clip, 1 + clip)).mean()


def larger_taken(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """The larger of the two is taken, the more hopeful one. The smaller one is meant: a gain
    beyond ε doesn't count, a loss always does. (max is right only where both have a minus
    already.)"""
    ratio = (logp - before).exp()
    return -torch.max(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def only_clipped(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Only the clipped product is taken. Then a token that went the wrong way, a good one that has
    become rare, gets no gradient and never comes back. Take the smaller of the product with the
    ratio as it is and of that with the clipped one."""
    return -((logp - before).exp().clamp(1 - clip, 1 + clip) * advantage).mean()


def never_clipped(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Nothing is clipped, and a policy that reads the same answers several times may run far away
    from the one that wrote them. Clip the ratio to 1 ± ε."""
    return -((logp - before).exp() * advantage).mean()


def a_gain(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """The minus is missing. An optimizer makes a loss small, and so good tokens would become
    rare."""
    return -_policy((logp - before).exp(), advantage, clip)


def sum_of_tokens(logp: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """This is a sum and not a mean: with longer answers a step would be longer, too. Take the mean
    over tokens."""
    return _policy((logp - before).exp(), advantage, clip) * logp.numel()


def _value(values: Tensor, near: Tensor, returns: Tensor) -> Tensor:
    return 0.5 * torch.max((values - returns).square(), (near - returns).square()).mean()


def smaller_error(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """The smaller error is taken (once a library's, ray #2233). Then an expectation that moved the
    wrong way is judged by where it would have been stopped, and has no gradient to come back. The
    larger one is meant: min for what should grow, max for what should shrink."""
    near = before + (values - before).clamp(-clip, clip)
    return 0.5 * torch.min((values - returns).square(), (near - returns).square()).mean()


def around_the_return(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """The value is clipped around the return, where it should go: then it has no gradient as long
    as it is far off. It is kept near where it was: around `before`."""
    near = returns + (values - returns).clamp(-clip, clip)
    return _value(returns, near, returns)


def around_zero(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """The value itself is clipped to ±`clip`. What is clipped is by how much it has moved: clamp
    the difference to `before`, and add `before` again."""
    return _value(values, values.clamp(-clip, clip), returns)


def by_a_share(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """`clip` is taken for a share of the value, as with the ratio of the policy. A value of 0
    could then never move. It is a distance, in units of the reward."""
    reach = before.abs() * clip
    return _value(values, torch.max(torch.min(values, before + reach), before - reach), returns)


def only_near(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Only the clipped value is judged. Then an expectation that moved the wrong way by more than
    `clip` has no gradient and never comes back. Take the larger of both errors."""
    return _value(returns, before + (values - before).clamp(-clip, clip), returns)


def anywhere(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """This is the plain squared error: nothing is clipped, or it is clipped around `returns`, and
    the larger error is always the plain one. Compute a second error with a value that stays within
    ±`clip` of `before`, and take the larger."""
    return _value(values, values, returns)


def half_forgotten(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """It's twice as large as it should be: half the squared error is wanted."""
    return 2 * _value(values, before + (values - before).clamp(-clip, clip), returns)


def not_squared(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """The errors aren't squared. The best answer to a squared error is the mean of what came, and
    that is what a value model should expect; to the size of the error it is the median."""
    near = before + (values - before).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns).abs(), (near - returns).abs()).mean()


def sum_of_errors(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """This is a sum and not a mean: with longer answers a step would be longer, too. Take the mean
    over tokens."""
    near = before + (values - before).clamp(-clip, clip)
    return values.numel() * _value(values, near, returns)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "policy_loss": (
        ratio_upside_down, exp_forgotten, logs_divided, advantage_clipped, product_clipped,
        larger_taken, only_clipped, never_clipped, a_gain, sum_of_tokens,
    ),
    "value_loss": (
        smaller_error, around_the_return, around_zero, by_a_share, only_near, anywhere,
        half_forgotten, not_squared, sum_of_errors,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
