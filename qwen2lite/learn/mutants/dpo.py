"""Wrong answers to the exercise 73_dpo: the probability of an answer, margins, and the loss.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen2lite.train.loss import IGNORED


def prompt_counted(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """The prompt is counted too: where the target is IGNORED, token 0 is asked instead. Such a position
    adds nothing, whatever the model thinks there."""
    return _sum(logits_TV, targets_T.clamp(min=0))


def mean_of_tokens(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """This is the mean over the tokens. The probability of an answer is a product, so its logarithm is
    a sum. Some want the mean, so that length doesn't count (trl #2964), but that is another loss."""
    return _sum(logits_TV, targets_T) / (targets_T != IGNORED).sum()


def multiplied(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """Probabilities are multiplied, and the logarithm is taken at the end. In float32 there is nothing
    between 1e-45 and 0, and a long answer gets there: its logarithm is −inf. Take each token's
    logarithm first, with log_softmax, and add."""
    asked_T = targets_T != IGNORED
    p_T = logits_TV.softmax(-1).gather(-1, targets_T.clamp(min=0)[:, None])[:, 0]
    return torch.where(asked_T, p_T, 1.0).prod().log()


def shifted_again(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """Targets are moved one place to the front, and they were before: each stands already where it is
    to come next. Position t of the targets belongs to position t of the logits."""
    return _sum(logits_TV[:-1], targets_T[1:])


def one_late(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """Each target is looked up one position late, where the model has read it already. Position t of
    the targets belongs to position t of the logits."""
    return _sum(logits_TV[1:], targets_T[:-1])


def a_loss(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """The sign is that of a loss, −ln p. What is wanted is ln p, which is never above 0: the likelier
    the answer, the larger."""
    return -_sum(logits_TV, targets_T)


def scores_added(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """Logits are added up. They are no logarithms of probabilities until a log_softmax has been taken
    over all tokens of the vocabulary."""
    picked_T = logits_TV.gather(-1, targets_T.clamp(min=0)[:, None])[:, 0]
    return (picked_T * (targets_T != IGNORED)).sum()


def zero_left_out(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """The token 0 isn't counted. It is a token like any other, "!" in Qwen2's vocabulary: compare with
    IGNORED, and don't ask whether a target is above 0."""
    return _sum(logits_TV, torch.where(targets_T > 0, targets_T, IGNORED))


def _sum(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    return -F.cross_entropy(logits_TV, targets_T, ignore_index=IGNORED, reduction="sum")


def reference_forgotten(logp: Tensor, reference: Tensor) -> Tensor:
    """The reference is forgotten. Then an answer that was likelier from the beginning counts as one
    that has been learnt; what counts is how much was gained since."""
    return logp[0] - logp[1]


def rejected_first(logp: Tensor, reference: Tensor) -> Tensor:
    """The sign is turned: this is the gain of the rejected answer less that of the chosen one. Row 0
    is the chosen answer, and what it gains should make the margin larger."""
    return (logp - reference)[1] - (logp - reference)[0]


def reference_added(logp: Tensor, reference: Tensor) -> Tensor:
    """The reference is added. A gain is what the policy gives now, less what the reference gave: ln of
    a quotient is a difference."""
    return (logp + reference)[0] - (logp + reference)[1]


def difference_of_means(logp: Tensor, reference: Tensor) -> Tensor:
    """This is one number for all pairs. Each pair wants its own: a pair that is won by far must not
    hide one that is lost."""
    chosen, rejected = (logp - reference).mean(1)
    return chosen - rejected


def columns_for_rows(logp: Tensor, reference: Tensor) -> Tensor:
    """Columns are taken for rows: one pair is compared with another one. Row 0 has the chosen answers
    of all pairs, row 1 the rejected ones; a pair is a column."""
    gains = logp - reference
    return gains[:, 0] - gains[:, 1]


def logs_divided(logp: Tensor, reference: Tensor) -> Tensor:
    """Logarithms are divided. Probabilities are, in the formula; their logarithms are subtracted."""
    return (logp / reference)[0] - (logp / reference)[1]


def log_of_sigmoid(margin: Tensor, beta: float) -> Tensor:
    """The sigmoid of a number far below 0 is 0 in float32, and its logarithm −inf: the pair that is
    lost most ruins all weights (tinker-cookbook #188). F.logsigmoid takes both in one step and never
    gets there."""
    return -torch.sigmoid(_checked(margin, beta) * beta).log().mean()


def saved_by_epsilon(margin: Tensor, beta: float) -> Tensor:
    """A small number in the logarithm, or a bound, keeps the loss finite and wrong: pairs that are lost
    by far look all the same and get no gradient, though they need it most. Take F.logsigmoid."""
    return -(torch.sigmoid(beta * _checked(margin, beta)) + 1e-8).log().mean()


def nan_on_the_way_back(margin: Tensor, beta: float) -> Tensor:
    """The loss is right, and its gradient isn't a number: torch.where computes both sides, and on the
    way back 0 times the infinite one is NaN. Take F.logsigmoid, which has no such side."""
    x = beta * _checked(margin, beta)
    return torch.where(x < -50, -x, (1 + (-x).exp()).log()).mean()


def corner_at_0(margin: Tensor, beta: float) -> Tensor:
    """The loss is right, and its gradient isn't where a margin is 0: relu, clamp and abs have a corner
    there. In DPO all pairs begin there, while the policy is still the reference. F.logsigmoid has no
    corner."""
    x = beta * _checked(margin, beta)
    return (F.relu(-x) + (-x.abs()).exp().log1p()).mean()


def beta_forgotten(margin: Tensor, beta: float) -> Tensor:
    """Beta is forgotten. It says how much a margin of 1 nat counts, so it multiplies the margin before
    anything else."""
    return -F.logsigmoid(_checked(margin, beta)).mean()


def beta_outside(margin: Tensor, beta: float) -> Tensor:
    """Beta stands outside the sigmoid and only scales the loss, as a learning rate would. Inside, it
    says from which margin on a pair counts as won."""
    return -beta * F.logsigmoid(_checked(margin, beta)).mean()


def prefers_the_rejected(margin: Tensor, beta: float) -> Tensor:
    """The margin has the wrong sign: the loss falls as the rejected answer wins. −ln σ(x) is small
    where x is large."""
    return -F.logsigmoid(-beta * _checked(margin, beta)).mean()


def minus_forgotten(margin: Tensor, beta: float) -> Tensor:
    """The minus is missing. ln σ is never above 0, and training makes it small: then the rejected
    answer wins. A loss is −ln of what should become likely."""
    return F.logsigmoid(beta * _checked(margin, beta)).mean()


def a_sum(margin: Tensor, beta: float) -> Tensor:
    """This is a sum and not a mean: with twice as many pairs in a batch a step would be twice as
    long. Take the mean over pairs."""
    return -F.logsigmoid(beta * _checked(margin, beta)).sum()


def mean_inside(margin: Tensor, beta: float) -> Tensor:
    """The margins are averaged first, so that a pair won by far makes up for one that is lost. Each
    pair has its own loss; average these."""
    return -F.logsigmoid(beta * _checked(margin, beta).mean())


def any_beta(margin: Tensor, beta: float) -> Tensor:
    """A beta of 0 learns nothing, as the loss is ln 2 whatever the margin, and one below 0 prefers
    rejected answers. Both run without a word: raise a ValueError that says so."""
    return -F.logsigmoid(beta * margin).mean() if margin.numel() else _checked(margin, 1.0)


def no_pair_accepted(margin: Tensor, beta: float) -> Tensor:
    """The mean over no pair is 0 / 0, which is not a number, and one such step ruins all weights:
    raise a ValueError where there is no margin."""
    return -F.logsigmoid(beta * margin).mean() if beta > 0 else _checked(margin, beta)


def _checked(margin: Tensor, beta: float) -> Tensor:
    if not beta > 0 or not margin.numel():
        raise ValueError("beta must be above 0, and there must be a pair")
    return margin


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "said_logp": (
        prompt_counted, mean_of_tokens, multiplied, shifted_again, one_late, a_loss, scores_added,
        zero_left_out,
    ),
    "margins": (
        reference_forgotten, rejected_first, reference_added, difference_of_means, columns_for_rows,
        logs_divided,
    ),
    "dpo_loss": (
        log_of_sigmoid, saved_by_epsilon, nan_on_the_way_back, corner_at_0, beta_forgotten,
        beta_outside, prefers_the_rejected, minus_forgotten, a_sum, mean_inside, any_beta,
        no_pair_accepted,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
