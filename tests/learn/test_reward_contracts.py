"""The contracts of lesson 72's tasks accept every right answer and tell wrong ones clearly."""

import math

import pytest
import torch
import torch.nn.functional as F

from qwen2lite.align import reward
from qwen2lite.learn.mutants import reward as mutants
from qwen2lite.learn.mutants.reward import MUTANTS
from tests.learn.verdict import verdict


def probability_by_cases(first, second):
    power = math.exp(-abs(first - second))
    return 1 / (1 + power) if first >= second else power / (1 + power)


def probability_by_tanh(first, second):
    return (1 + math.tanh((first - second) / 2)) / 2


def probability_by_softmax(first, second):
    return torch.tensor([first, second]).softmax(0)[0]


def probability_from_the_largest(first, second):
    largest = max(first, second)
    mine, other = math.exp(first - largest), math.exp(second - largest)
    return mine / (mine + other)


def loss_by_the_package(chosen_B, rejected_B):
    return reward.pairwise_loss(chosen_B, rejected_B)


def loss_by_softplus(chosen_B, rejected_B):
    if len(chosen_B) != len(rejected_B):
        raise ValueError("pairs have two sides")
    if not len(chosen_B):
        return torch.tensor(0.0)
    return F.softplus(rejected_B.float() - chosen_B.float()).mean()


def loss_by_loop(chosen_B, rejected_B):
    losses = [
        torch.logaddexp(torch.zeros(()), (worse - better).float())
        for better, worse in zip(chosen_B, rejected_B, strict=True)
    ]
    return sum(losses) / len(losses) if losses else torch.zeros(())


def loss_by_cross_entropy(chosen_B, rejected_B):
    """The chosen answer is class 0 of two."""
    if chosen_B.shape != rejected_B.shape:
        raise ValueError
    both_B2 = torch.stack((chosen_B, rejected_B), dim=1).float()
    classes_B = torch.zeros(len(chosen_B), dtype=torch.long)
    return F.cross_entropy(both_B2, classes_B, reduction="sum") / max(1, len(chosen_B))


def ends_by_gather(rewards_BT, lengths_B):
    return rewards_BT.gather(1, lengths_B[:, None] - 1).squeeze(1)


def ends_by_loop(rewards_BT, lengths_B):
    rows = zip(rewards_BT, lengths_B, strict=True)
    return torch.stack([row[:length][-1] for row, length in rows])


def ends_by_mask(rewards_BT, lengths_B):
    return rewards_BT[torch.arange(rewards_BT.shape[1]) == lengths_B[:, None] - 1]


def ends_by_diagonal(rewards_BT, lengths_B):
    return rewards_BT[:, lengths_B - 1].diagonal()


def share_by_loop(chosen_B, rejected_B):
    won = [c > r for c, r in zip(chosen_B.tolist(), rejected_B.tolist(), strict=True)]
    return sum(won) / len(won)


def best_by_view(rewards, samples):
    best = torch.tensor(rewards).view(-1, samples).argmax(-1)
    return (best + samples * torch.arange(len(best))).tolist()


def best_as_a_tensor(rewards, samples):
    return torch.tensor(best_by_view(rewards, samples))


def best_in_one_pass(rewards, samples):
    kept = []
    for number, value in enumerate(rewards):
        if number % samples == 0:
            kept.append(number)
        elif value > rewards[kept[-1]]:
            kept[-1] = number
    return tuple(kept)


RIGHT = [
    ("preferred", probability_by_cases),
    ("preferred", probability_by_tanh),
    ("preferred", probability_by_softmax),
    ("preferred", probability_from_the_largest),
    ("preferred", lambda first, second: torch.sigmoid(torch.tensor(first - second)).item()),
    ("pairwise_loss", loss_by_the_package),
    ("pairwise_loss", loss_by_softplus),
    ("pairwise_loss", loss_by_loop),
    ("pairwise_loss", loss_by_cross_entropy),
    ("read_at_end", ends_by_gather),
    ("read_at_end", ends_by_loop),
    ("read_at_end", ends_by_mask),
    ("read_at_end", ends_by_diagonal),
    ("share_won", share_by_loop),
    ("share_won", lambda chosen_B, rejected_B: (chosen_B - rejected_B > 0).double().mean()),
    ("share_won", lambda c, r: torch.gt(c, r).sum() / len(c)),
    ("mended_best", best_by_view),
    ("mended_best", best_as_a_tensor),
    ("mended_best", best_in_one_pass),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def other_loss(chosen_B, rejected_B):
    return 2 * reward.pairwise_loss(chosen_B, rejected_B)


def lost_way_back(chosen_B, rejected_B):
    """Right, but the gradient of the branch not taken is infinity times 0."""
    difference_B = reward_differences(chosen_B, rejected_B)
    power_B = (-difference_B).exp()
    loss_B = torch.where(difference_B < -50, -difference_B, power_B.log1p())
    return loss_B.sum() / max(len(loss_B), 1)


def reward_differences(chosen_B, rejected_B):
    if chosen_B.shape != rejected_B.shape:
        raise ValueError
    return (chosen_B - rejected_B).float()


def one_side_only(chosen_B, rejected_B):
    return reward.pairwise_loss(chosen_B, rejected_B.detach())


def by_subtraction(chosen, rejected):
    """Refuses what can't be subtracted, with PyTorch's error."""
    if chosen.shape != rejected.shape and 1 not in (len(chosen), len(rejected)):
        return chosen - rejected
    return reward.pairwise_loss(chosen, rejected)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("preferred", lambda a, b: [a, b], "returned list; one number was wanted"),
        ("preferred", lambda a, b: a > b, "returned True; one number was wanted"),
        ("preferred", lambda a, b: torch.tensor([a, b]).softmax(0), "float32 [2]; one number"),
        ("preferred", lambda a, b: None, "returned None"),
        ("preferred", lambda a, b: "3 to 1", "returned '3 to 1'; one number was wanted"),
        ("preferred", lambda a, b: 75, "3.0986 and 2 the first is preferred with the probability"),
        ("preferred", lambda a: a, "TypeError"),
        ("pairwise_loss", lambda c, r: 1.5, "returned a float, and a tensor float32 []"),
        ("pairwise_loss", lambda c, r: c - r, "returned float32 [2], and float32 [] was"),
        ("pairwise_loss", lambda c, r: loss_by_loop(c, r).double(), "returned float64 []"),
        ("pairwise_loss", other_loss, "and 1/2: the loss is 0.4904, and yours is 0.9808"),
        ("pairwise_loss", lambda c, r: loss_by_softplus(c, r.sub_(1)), "changed a tensor"),
        ("pairwise_loss", lambda c, r: loss_by_softplus(c.detach(), r.detach()), "stops the"),
        ("pairwise_loss", one_side_only, "no gradient through to the rejected rewards"),
        ("pairwise_loss", lost_way_back, "the gradient of the chosen rewards is [-0.3333, 0,"),
        ("pairwise_loss", by_subtraction, "For 2 chosen and 3 rejected rewards it raised Runt"),
        ("read_at_end", lambda x, n: x.tolist(), "returned a list, and a tensor float32 [2]"),
        ("read_at_end", lambda x, n: x, "returned float32 [2, 4], and float32 [2] was wanted"),
        ("read_at_end", lambda x, n: ends_by_loop(x, n).detach(), "stops the gradient"),
        ("read_at_end", lambda x, n: ends_by_loop(x, n) + 1, "are [-2, 0.5], and yours are [-1,"),
        ("read_at_end", lambda x, n: ends_by_loop(x, n.clamp_(1, 2)), "changed a tensor"),
        ("share_won", lambda c, r: c > r, "returned bool [5]; one number was wanted"),
        ("share_won", lambda c, r: "60%", "returned '60%'; one number was wanted"),
        ("share_won", lambda c, r: math.nan, "the share 0.6 is won, and yours is nan"),
        ("share_won", lambda c, r: 60, "the share 0.6 is won, and yours is 60"),
        ("mended_best", lambda x, n: 3, "returned 3; a list of whole numbers was wanted"),
        ("mended_best", lambda x, n: [0.5], "returned [0.5]; a list of whole numbers"),
        ("mended_best", lambda x, n: iter([]), "list_iterator; a list of whole numbers"),
        ("mended_best", lambda x, n: [[1], [3]], "returned [[1], [3]]; a list of whole"),
        ("mended_best", lambda x, n: [], "the best are [1, 3], and yours are []"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (
            lambda a, b: torch.tensor(a).exp() / (torch.tensor(a).exp() + torch.tensor(b).exp()),
            mutants.powers_of_rewards,
        ),
        (
            lambda a, b: math.exp(a - b) / (1 + math.exp(a - b)),
            mutants.power_of_difference,
        ),
        (
            lambda a, b: torch.tensor(a - b).exp() / (1 + torch.tensor(a - b).exp()),
            mutants.power_of_difference,
        ),
    ],
)
def test_an_overflow_is_known_whether_it_raises_or_is_no_number(part, why):
    assert verdict("preferred", part).reason == " ".join(why.__doc__.split())


def test_a_loss_that_overflows_is_known_in_another_hand():
    def logarithm(chosen_B, rejected_B):
        difference_B = reward_differences(chosen_B, rejected_B)
        return (1 + (-difference_B).exp()).log().sum() / max(len(difference_B), 1)

    assert "`F.logsigmoid` does both" in verdict("pairwise_loss", logarithm).reason


@pytest.mark.parametrize("in_float32", [True, False])
def test_a_loss_in_16_bits_is_known_in_another_hand(in_float32):
    def narrow(chosen_B, rejected_B):
        if chosen_B.shape != rejected_B.shape:
            raise ValueError
        loss = F.softplus(rejected_B - chosen_B).sum() / max(len(chosen_B), 1)
        return loss.float() if in_float32 else loss

    assert "Turn the difference into float32" in verdict("pairwise_loss", narrow).reason


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mistake_that_nobody_foresaw_gets_no_reason(name):
    """Better none than another one's."""

    def odd(*inputs):
        return {"mended_best": [7], "read_at_end": torch.tensor([7.0, 7.0])}.get(
            name, torch.tensor(7.0)
        )

    result = verdict(name, odd)
    assert (result.state, result.reason) == ("wrong", "")
