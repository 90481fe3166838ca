"""The contracts of lesson 62's tasks accept every right answer and tell wrong ones clearly.

The layer `moe` and `load_balance_loss` are tested in test_moe_contracts.py.
"""

import pytest
import torch

from qwen2lite.model.balance import BiasedRoute
from tests.learn.verdict import verdict


def shared_by_exponent(mixed, shared, scores):
    return shared / (1 + torch.exp(-scores)) + mixed


def shared_by_addcmul(mixed, shared, scores):
    return torch.addcmul(mixed, torch.sigmoid(scores), shared)


def shared_by_softmax_of_two(mixed, shared, scores):
    both = torch.cat((scores, torch.zeros_like(scores)), dim=-1).softmax(-1)
    return mixed + both[..., :1] * shared


def bias_by_loop(bias, counts, rate):
    mean, moved = sum(counts.tolist()) / len(counts), bias.clone()
    for expert, count in enumerate(counts.tolist()):
        moved[expert] += rate if count < mean else -rate if count > mean else 0.0
    return moved


def bias_by_where(bias, counts, rate):
    mean = counts.float().mean()
    step = torch.where(counts < mean, rate, torch.where(counts > mean, -rate, 0.0))
    return bias + step


def bias_by_shares(bias, counts, rate):
    share = counts / counts.sum()
    return bias - rate * torch.sign(share - 1 / len(counts))


def biased_by_argsort(logits, bias, number):
    probabilities = torch.softmax(logits.float(), dim=1)
    chosen = (probabilities + bias).argsort(1)[:, -number:]
    return torch.take_along_dim(probabilities, chosen, 1), chosen


def biased_by_loops(logits, bias, number):
    rows, places = [], []
    for row in logits.float().softmax(1).tolist():
        ranked = sorted(range(len(row)), key=lambda e: -(row[e] + float(bias[e])))[:number]
        places.append(ranked)
        rows.append([row[e] for e in ranked])
    return torch.tensor(rows), torch.tensor(places)


def biased_by_the_package(logits, bias, number):
    route = BiasedRoute(logits.shape[1])
    route.bias_E.copy_(bias)
    return route(logits, number, False)


RIGHT = [
    ("add_shared", shared_by_exponent),
    ("add_shared", shared_by_addcmul),
    ("add_shared", shared_by_softmax_of_two),
    ("moved_bias", bias_by_loop),
    ("moved_bias", bias_by_where),
    ("moved_bias", bias_by_shares),
    ("mended_biased", biased_by_argsort),
    ("mended_biased", biased_by_loops),
    ("mended_biased", biased_by_the_package),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def moves_in_place(bias, counts, rate):
    bias += rate
    return bias


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("add_shared", lambda m, s, g: m + s.sum(), "its gate's score 1.099, wanted [13, 26]"),
        ("add_shared", lambda m, s, g: g, "returned float32 [1, 1, 1], and float32 [1, 1, 2]"),
        ("moved_bias", moves_in_place, "changed a tensor"),
        ("moved_bias", lambda b, c, r: b * 0, "become [-0.1, 0.6, -0.4], and yours [0, 0, 0]"),
        ("mended_biased", lambda s, b, k: s, "a pair was wanted: weights and chosen"),
        ("mended_biased", lambda s, b, k: (s, s), "as its first, returned float32 [2, 3]"),
        (
            "mended_biased",
            lambda s, b, k: (s.softmax(1)[:, :k] / 2, torch.arange(k).expand(len(s), k)),
            "and yours [0.15, 0.1, 0]",
        ),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong
