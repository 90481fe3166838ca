"""Wrong answers to the tasks of the exercise 72_reward.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def ratio_of_rewards(first: float, second: float) -> float:
    """The rewards themselves are set in proportion. They may be negative, and only their difference
    means something: it is the powers e^reward whose proportion counts."""
    return first / (first + second)


def second_preferred(first: float, second: float) -> float:
    """This is the probability that the second answer is preferred. The difference has the wrong sign:
    take the second reward from the first."""
    return 1 / (1 + math.exp(first - second))


def larger_wins(first: float, second: float) -> float:
    """The better answer always wins here. By Bradley and Terry a better answer is preferred more often,
    and the more so the larger the difference is."""
    return float(first > second)


def powers_of_rewards(first: float, second: float) -> float:
    """e^1000 is more than a floating-point number holds. Don't take the powers of both rewards: only
    the sigmoid of their difference is needed."""
    return math.exp(first) / (math.exp(first) + math.exp(second))


def power_of_difference(first: float, second: float) -> float:
    """1 / (1 + e^-x) overflows where x is far below 0, and e^x / (1 + e^x) where it is far above. Take
    each where it doesn't, or PyTorch's `sigmoid` of a tensor, which takes care of both."""
    return 1 / (1 + math.exp(second - first))


def log_of_sigmoid(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """The sigmoid of a large wrong difference is rounded to 0, and its logarithm is infinite, where the
    model has most to learn. `F.logsigmoid` does both in one."""
    return _mean(_checked(chosen_B, rejected_B).sigmoid().log())


def prefers_the_rejected(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """The difference has the wrong sign, and the model learns to like what people rejected: take the
    rejected reward from the chosen one."""
    return _mean(F.logsigmoid(-_checked(chosen_B, rejected_B)))


def sign_of_the_loss(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """A minus is missing. The logarithm of a probability is below 0, and a loss is to become smaller:
    it is minus the logarithm."""
    return -_mean(F.logsigmoid(_checked(chosen_B, rejected_B)))


def difference_of_means(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """The rewards are averaged first. So a pair that is very right makes up for one that is wrong, and
    answers to other questions are compared: take the mean last."""
    return -F.logsigmoid(_checked(chosen_B, rejected_B).sum() / max(len(chosen_B), 1))


def hinge(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """This is another loss: it is content with a difference of 1, and beyond that learns nothing. Here
    the surprise -ln σ is asked for, which gets smaller and smaller but never 0."""
    return -_mean((_checked(chosen_B, rejected_B) - 1).clamp(max=0))


def sum_of_pairs(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """This is a sum and not a mean: with twice the pairs the loss is twice as large. Divide by the
    number of pairs."""
    return -F.logsigmoid(_checked(chosen_B, rejected_B)).sum()


def all_against_all(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """Every chosen answer is compared with every rejected one, also with those to other questions.
    Nobody said which of those is better: subtract pair by pair."""
    _checked(chosen_B, rejected_B)
    differences_BB = chosen_B[:, None] - rejected_B[None, :]
    return -F.logsigmoid(differences_BB.float()).sum() / max(differences_BB.numel(), 1)


def in_16_bits(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """The loss is taken in bfloat16, as the rewards came, with not even three digits. Turn the
    difference into float32 by `.float()`, and not the result."""
    _checked(chosen_B, rejected_B)
    return _mean(F.logsigmoid(chosen_B - rejected_B)).float()


def no_pair_no_number(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """Without a pair this is 0 / 0, which is not a number, and one such batch ruins all weights: take
    the sum, and divide it by at least 1."""
    return -F.logsigmoid(_checked(chosen_B, rejected_B)).mean()


def any_shapes(chosen: Tensor, rejected: Tensor) -> Tensor:
    """A single reward is compared with all others, as PyTorch stretches it without a word. Compare the
    two shapes first, and raise a ValueError where they differ."""
    return _mean(F.logsigmoid((chosen - rejected).float()))


def _checked(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """The differences, where there are as many of one as of the other."""
    if chosen_B.shape != rejected_B.shape:
        raise ValueError("not as many of one as of the other")
    return (chosen_B - rejected_B).float()


def _mean(logp_B: Tensor) -> Tensor:
    """Minus the mean, of nothing 0."""
    return -logp_B.sum() / max(len(logp_B), 1)


def last_column(rewards_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """This reads where the row ends, and not where the text ends. There a shorter text has only
    padding, whose rewards mean nothing."""
    return rewards_BT[:, -1]


def first_column(rewards_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """This reads at the first token. There the model has seen nothing else yet, and all texts that
    begin alike have the same reward."""
    return rewards_BT[:, 0]


def mean_of_row(rewards_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """This is the mean over the whole row, padding included. One number counts: that at the last token,
    where everything has been read."""
    return rewards_BT.mean(-1)


def mean_of_text(rewards_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """This is the mean over the text. At most of its tokens the model didn't know yet how the answer
    goes on; only the number at the last one counts."""
    return sum_of_text(rewards_BT, lengths_B) / lengths_B


def sum_of_text(rewards_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """This adds up all numbers of a text, so that its length counts. Only the last one is wanted."""
    places_T = torch.arange(rewards_BT.shape[1])
    return torch.where(places_T < lengths_B[:, None], rewards_BT, 0).sum(-1)


def length_for_index(rewards_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """A length is taken for an index, and that is one place behind the text. Places are counted from 0:
    the last of 3 tokens has the number 2."""
    return rewards_BT[torch.arange(len(lengths_B)), lengths_B]


def one_before_the_end(rewards_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """This reads one token too early, before the end token, as a library once did (gpt-neox #1285). The
    last of 3 tokens has the number 2."""
    return rewards_BT[torch.arange(len(lengths_B)), lengths_B - 2]


def every_column(rewards_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """A `:` before the comma takes the columns out of every row: B numbers a text. Each row has one
    column of its own: give the numbers of the rows too, `torch.arange`."""
    return rewards_BT[:, lengths_B - 1]


def ties_won(chosen_B: Tensor, rejected_B: Tensor) -> float:
    """Equal rewards are counted as won. A model that finds all answers equally good would win every
    pair, and it has understood nothing."""
    return float((chosen_B >= rejected_B).float().mean())


def means_compared(chosen_B: Tensor, rejected_B: Tensor) -> float:
    """The means are compared, which gives 0 or 1. Compare pair by pair, and take the mean of that."""
    return float(chosen_B.mean() > rejected_B.mean())


def share_lost(chosen_B: Tensor, rejected_B: Tensor) -> float:
    """This is the share of pairs whose rejected answer has the larger reward. The comparison stands the
    wrong way round."""
    return float((rejected_B > chosen_B).float().mean())


def pairs_counted(chosen_B: Tensor, rejected_B: Tensor) -> int:
    """This is how many pairs are won. A share is that, divided by how many pairs there are."""
    return int((chosen_B > rejected_B).sum())


def above_0(chosen_B: Tensor, rejected_B: Tensor) -> float:
    """The chosen rewards are compared with 0. But 0 has no meaning of its own: a good answer may have
    -3, if the worse one to the same question has -5."""
    return float((chosen_B > 0).float().mean())


def best_of_all(rewards: Sequence[float], samples: int) -> list[int]:
    """The best answers of all are kept, so that one question keeps two and another none. Rewards of
    different questions can't be compared: find the largest among the answers to each."""
    questions = len(rewards) // samples
    best_first = sorted(range(len(rewards)), key=lambda number: rewards[number], reverse=True)
    return sorted(best_first[:questions])


def counted_anew(rewards: Sequence[float], samples: int) -> list[int]:
    """Each question counts its answers anew from 0, so that nobody knows whose they are. Add the number
    at which the question's answers begin."""
    return [number % samples for number in _of_each(max, rewards, samples)]


def rewards_for_numbers(rewards: Sequence[float], samples: int) -> list[float]:
    """These are the largest rewards, and not the numbers of the answers that have them."""
    return [rewards[number] for number in _of_each(max, rewards, samples)]


def worst_of_each(rewards: Sequence[float], samples: int) -> list[int]:
    """These are the worst answers. The larger the reward, the better."""
    return _of_each(min, rewards, samples)


def dealt_like_cards(rewards: Sequence[float], samples: int) -> list[int]:
    """The answers are dealt to the questions like cards, one to each in turn. But all answers to the
    first question come first: its numbers are 0 to samples - 1."""
    questions = range(len(rewards) // samples)
    hands = [range(first, len(rewards), len(questions)) for first in questions]
    return [max(hand, key=rewards.__getitem__) for hand in hands]


def _of_each(pick: Callable[..., int], rewards: Sequence[float], samples: int) -> list[int]:
    starts = range(0, len(rewards), samples)
    return [pick(range(n, n + samples), key=rewards.__getitem__) for n in starts]


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "preferred": (
        ratio_of_rewards, second_preferred, larger_wins, powers_of_rewards, power_of_difference,
    ),
    "pairwise_loss": (
        log_of_sigmoid, prefers_the_rejected, sign_of_the_loss, difference_of_means, hinge,
        sum_of_pairs, all_against_all, in_16_bits, no_pair_no_number, any_shapes,
    ),
    "read_at_end": (
        last_column, first_column, mean_of_row, mean_of_text, sum_of_text, length_for_index,
        one_before_the_end, every_column,
    ),
    "share_won": (ties_won, means_compared, share_lost, pairs_counted, above_0),
    "mended_best": (
        best_of_all, counted_anew, rewards_for_numbers, worst_of_each, dealt_like_cards,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
