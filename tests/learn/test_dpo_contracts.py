"""The contracts of lesson 73's tasks accept every right answer and tell wrong ones clearly."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qwen2lite.align import dpo
from qwen2lite.align.merge import drop_at_random
from qwen2lite.learn.check import examine
from qwen2lite.learn.mutants import dpo as mutants
from qwen2lite.learn.mutants import dpo_tasks
from qwen2lite.train.loss import IGNORED
from tests.learn.verdict import verdict


def logp_by_torch(logits_TV, targets_T):
    return -F.cross_entropy(logits_TV, targets_T, ignore_index=IGNORED, reduction="sum")


def logp_of_the_asked(logits_TV, targets_T):
    asked_T = targets_T != IGNORED
    logp_XV = logits_TV[asked_T].log_softmax(-1)
    return logp_XV[torch.arange(len(logp_XV)), targets_T[asked_T]].sum()


def logp_by_loop(logits_TV, targets_T):
    total = torch.tensor(0.0)
    for logits_V, target in zip(logits_TV, targets_T.tolist(), strict=True):
        if target != IGNORED:
            total = total + logits_V[target] - logits_V.logsumexp(0)
    return total


def margins_by_pairs(logp, reference):
    chosen, rejected = logp
    return (chosen - rejected) - (reference[0] - reference[1])


def margins_by_loop(logp, reference):
    columns = range(logp.shape[1])
    gains = [[logp[row, pair] - reference[row, pair] for pair in columns] for row in (0, 1)]
    return torch.stack([a - b for a, b in zip(*gains, strict=True)])


def refused(margin, beta):
    if beta <= 0:
        raise ValueError("beta")
    if len(margin) == 0:
        raise ValueError("no pair")


def loss_by_softplus(margin, beta):
    refused(margin, beta)
    return F.softplus(-beta * margin).mean()


def loss_by_two_classes(margin, beta):
    refused(margin, beta)
    return torch.logaddexp(torch.zeros_like(margin), -beta * margin).sum() / len(margin)


def loss_by_the_larger(margin, beta):
    refused(margin, beta)
    both = torch.stack((torch.zeros_like(margin), -beta * margin))
    return both.logsumexp(0).mean()


def loss_of_binary_labels(margin, beta):
    refused(margin, beta)
    return F.binary_cross_entropy_with_logits(beta * margin, torch.ones_like(margin))


def two_by_index(scores):
    if max(scores) == min(scores):
        return None
    return scores.index(max(scores)), scores.index(min(scores))


def two_by_sorting(scores):
    """Of equal ones the last best and the first worst, as a list."""
    ranked = sorted(range(len(scores)), key=scores.__getitem__)
    return [ranked[-1], ranked[0]] if scores[ranked[-1]] > scores[ranked[0]] else None


def two_by_tensors(scores):
    scores = torch.tensor(scores)
    return (scores.argmax(), scores.argmin()) if len(scores.unique()) > 1 else None


def two_by_numpy(scores):
    return (np.argmax(scores), np.argmin(scores)) if np.ptp(scores) > 0 else None


def two_by_loop(scores):
    best = worst = 0
    for number, score in enumerate(scores):
        if score > scores[best]:
            best = number
        elif score < scores[worst]:
            worst = number
    if best != worst:
        return best, worst


def drop_one_by_one(x, keep):
    kept = [value if torch.rand(()) < keep else 0 * value for value in x.flatten()]
    return torch.stack(kept).view_as(x)


RIGHT = [
    ("said_logp", logp_by_torch),
    ("said_logp", logp_of_the_asked),
    ("said_logp", logp_by_loop),
    ("margins", lambda logp, reference: dpo.margins(logp, reference)),
    ("margins", margins_by_pairs),
    ("margins", margins_by_loop),
    ("margins", lambda logp, reference: -(logp - reference).diff(dim=0)[0]),
    ("dpo_loss", lambda margin, beta: dpo.dpo_loss(margin, beta)),
    ("dpo_loss", loss_by_softplus),
    ("dpo_loss", loss_by_two_classes),
    ("dpo_loss", loss_by_the_larger),
    ("dpo_loss", loss_of_binary_labels),
    ("best_and_worst", two_by_index),
    ("best_and_worst", two_by_sorting),
    ("best_and_worst", two_by_tensors),
    ("best_and_worst", two_by_numpy),
    ("best_and_worst", two_by_loop),
    ("mended_drop", lambda x, keep: drop_at_random(x, keep)),
    ("mended_drop", lambda x, keep: keep * F.dropout(x, 1 - keep)),
    ("mended_drop", lambda x, keep: torch.where(torch.rand(x.shape) < keep, x, 0.0)),
    ("mended_drop", lambda x, keep: x * torch.bernoulli(torch.full_like(x, keep))),
    ("mended_drop", lambda x, keep: x.masked_fill(torch.rand_like(x) >= keep, 0)),
    ("mended_drop", drop_one_by_one),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize("seed", range(20))
def test_chance_refuses_no_right_answer(seed):
    """Whatever the seed: it is given through draws that the contract doesn't know of."""

    def right(x, keep):
        torch.rand(seed)
        return drop_at_random(x, keep)

    assert verdict("mended_drop", right).state == "right"


@pytest.mark.parametrize("name", sorted(mutants.MUTANTS))
def test_the_packages_own_passes(name):
    part = {"margins": dpo.margins, "dpo_loss": dpo.dpo_loss}.get(name, logp_by_torch)
    assert verdict(name, part).state == "right"


def naive(margin, beta):
    refused(margin, beta)
    return torch.log(1 + torch.exp(-beta * margin)).mean()


def bounded(margin, beta):
    refused(margin, beta)
    return -F.logsigmoid((beta * margin).clamp(-50, 50)).mean()


def by_clamp(margin, beta):
    """Its gradient at 0 is twice what it should be."""
    refused(margin, beta)
    x = beta * margin
    return (x.neg().clamp(min=0) + x.abs().neg().exp().log1p()).mean()


def stopped(margin, beta):
    refused(margin, beta)
    return -F.logsigmoid(beta * margin.detach()).mean()


def careless(margin, beta):
    if not beta > 0:
        raise ValueError("beta")
    return -F.logsigmoid(beta * margin).sum() / (len(margin) or None)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("said_logp", lambda x, t: -1.2, "returned a float, and a tensor float32 []"),
        ("said_logp", lambda x, t: x.log_softmax(-1), "returned float32 [3, 3], and float32 []"),
        ("said_logp", lambda x, t: logp_by_torch(x, t).double(), "returned float64 []"),
        ("said_logp", lambda x, t: logp_by_torch(x.detach(), t), "stops the gradient"),
        ("said_logp", lambda x, t: logp_by_torch(x, t.clamp_(0)), "changed a tensor"),
        ("said_logp", lambda x, t: 2 * logp_by_torch(x, t), "is -1.2040, and yours is -2.4079"),
        (
            "said_logp",
            lambda x, t: x.gather(1, t[:, None]).sum(),
            "raised RuntimeError: index -100",
        ),
        ("said_logp", lambda x, t: None, "returned None"),
        ("margins", lambda logp, reference: 3, "returned a int, and a tensor float32 [2]"),
        ("margins", lambda logp, reference: logp - reference, "float32 [2, 2], and float32 [2]"),
        ("margins", lambda logp, reference: dpo.margins(logp, reference).tolist(), "a list, and"),
        ("margins", lambda logp, reference: logp[0], "are [3, -1], and yours are [-2, -1]"),
        ("margins", lambda logp, reference: dpo.margins(logp.sub_(1), reference), "changed a"),
        ("margins", lambda logp, r: dpo.margins(logp.detach(), r), "stops the gradient"),
        ("margins", lambda logp: logp[0], "TypeError"),
        ("dpo_loss", lambda margin, beta: 0.4, "returned a float, and a tensor float32 []"),
        ("dpo_loss", lambda margin, beta: beta * margin, "float32 [1], and float32 []"),
        ("dpo_loss", lambda margin, beta: naive(margin, 1), "0.4055, and yours is 0.2231"),
        ("dpo_loss", naive, "[-1000] and β = 1 the loss is 1000.0000, and yours is inf"),
        ("dpo_loss", bounded, "the loss is 1000.0000, and yours is 50"),
        ("dpo_loss", stopped, "stops the gradient"),
        ("dpo_loss", careless, "For no pair it raised TypeError, and should raise a ValueError"),
        ("best_and_worst", lambda scores: 3, "returned 3 for 4 rewards; two whole numbers from 0"),
        ("best_and_worst", lambda scores: (1.0, 2.0), "returned (1.0, 2.0) for 4 rewards; two"),
        ("best_and_worst", lambda scores: (1, True), "returned (1, True) for"),
        ("best_and_worst", lambda scores: (1, 2, 3), "returned (1, 2, 3) for"),
        ("best_and_worst", lambda scores: (1, -2), "returned (1, -2) for 4 rewards; two whole"),
        ("best_and_worst", lambda scores: "12", "returned '12' for 4 rewards; two"),
        ("best_and_worst", lambda scores: None, "(1, 2) was wanted; you gave None"),
        ("best_and_worst", lambda scores: (3, 2), "(1, 2) was wanted; you gave (3, 2)"),
        ("best_and_worst", lambda scores: scores.sort(), "changed the list of rewards"),
        ("best_and_worst", lambda scores: scores[9], "IndexError: list index out of range"),
        ("mended_drop", lambda x, keep: 1.0, "returned a float, and a tensor float32 [200, 100]"),
        ("mended_drop", lambda x, keep: x[torch.rand_like(x) < keep], "and float32 [200, 100] was"),
        ("mended_drop", lambda x, keep: x.mul_(torch.rand_like(x) < keep), "changed a tensor"),
        (
            "mended_drop",
            lambda x, keep: 0 * x,
            "25% of 20,000 numbers should be kept, more or less",
        ),
        ("mended_drop", lambda x, keep: drop_at_random(x, 0.9 * keep), "and 22."),
        ("mended_drop", lambda x, keep: -drop_at_random(x, keep), "should stay or become 0"),
        (
            "mended_drop",
            lambda x, keep: drop_at_random(x, keep) * (1 if keep < 1 else 0),
            "With keep = 1 all numbers should stay",
        ),
        (
            "mended_drop",
            lambda x, keep: x * (torch.rand(x.shape[1]) < keep),
            "Of each column of a matrix either all",
        ),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


@pytest.mark.parametrize(
    ("name", "part", "why"),
    [
        ("dpo_loss", naive, "F.logsigmoid takes both in one step"),
        ("dpo_loss", lambda m, b: -torch.sigmoid(m * b).log().mean(), "F.logsigmoid takes both"),
        ("dpo_loss", lambda m, b: F.softplus(b * m).mean(), "wrong sign"),
        (
            "said_logp",
            lambda x, t: logp_of_the_asked(x, t) / (t >= 0).sum(),
            "mean over the tokens",
        ),
        ("best_and_worst", lambda s: (s.index(max(s)), s.index(min(s))), "would teach chance"),
        ("mended_drop", lambda x, keep: x * (torch.rand_like(x) < keep) / keep, "dropout divides"),
        ("mended_drop", lambda x, keep: x * (torch.rand_like(x) < 1 - keep), "share to drop"),
    ],
)
def test_a_mistake_is_known_in_another_hand(name, part, why):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert why in result.reason, result


def test_a_seed_of_ones_own_is_told():
    def seeded(x, keep):
        torch.manual_seed(5)
        return drop_at_random(x, keep)

    assert "kept the same numbers both times" in verdict("mended_drop", seeded).wrong


def test_the_learners_chance_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    examine(mended_drop=lambda x, keep: drop_at_random(x, keep))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", sorted(mutants.MUTANTS | dpo_tasks.MUTANTS))
def test_a_mistake_that_nobody_foresaw_gets_no_reason(name):
    """Better none than another one's."""

    def odd(*inputs):
        if name == "mended_drop":
            return math.pi * inputs[0]
        seven = torch.tensor(7.0)
        return {"margins": seven.expand(2), "best_and_worst": (2, 0)}.get(name, seven)

    result = verdict(name, odd)
    assert (result.state, result.reason) == ("wrong", "")
