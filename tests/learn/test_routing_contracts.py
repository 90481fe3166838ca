"""The contracts of lesson 61's tasks accept every right answer and tell wrong ones clearly.

`route` and the experts are tested in test_moe_contracts.py.
"""

import math
from itertools import combinations

import pytest
import torch

from tests.learn.verdict import verdict


def teams_by_product(experts, chosen):
    number = 1
    for place in range(chosen):
        number = number * (experts - place) // (place + 1)
    return number


def teams_by_factorials(experts, chosen):
    return math.factorial(experts) // (math.factorial(chosen) * math.factorial(experts - chosen))


def teams_by_listing(experts, chosen):
    if experts > 20:
        return math.comb(experts, chosen)
    return len(list(combinations(range(experts), chosen)))


def mix_by_token(x, weights, chosen, experts):
    rows = []
    for token, shares, numbers in zip(x, weights, chosen.tolist(), strict=True):
        answers = [experts[n](token[None])[0] for n in numbers]
        rows.append(sum(s * answer for s, answer in zip(shares, answers, strict=True)))
    return torch.stack(rows)


def mix_by_expert(x, weights, chosen, experts):
    mixed = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        token, place = (chosen == number).nonzero(as_tuple=True)
        if len(token):
            mixed.index_add_(0, token, weights[token, place, None] * expert(x[token]))
    return mixed


def mix_by_sorting(x, weights, chosen, experts):
    order = chosen.flatten().argsort()
    token, shares = order // chosen.shape[1], weights.flatten()[order, None]
    counts = chosen.flatten().bincount(minlength=len(experts)).tolist()
    mixed = torch.zeros_like(x)
    pieces = zip(experts, token.split(counts), shares.split(counts), strict=True)
    for expert, mine, share in pieces:
        mixed = mixed.index_add(0, mine, share * expert(x[mine]))
    return mixed


def sorted_by_loops(chosen, num_experts):
    found = [[t for t, row in enumerate(chosen.tolist()) if e in row] for e in range(num_experts)]
    return [t for tokens in found for t in tokens], [len(tokens) for tokens in found]


def sorted_by_sort(chosen, num_experts):
    experts, places = chosen.flatten().sort(stable=True)
    return places // chosen.shape[1], experts.bincount(minlength=num_experts)


def sorted_by_pairs(chosen, num_experts):
    pairs = sorted((e, -t) for t, row in enumerate(chosen.tolist()) for e in row)
    counts = [sum(e == number for e, _ in pairs) for number in range(num_experts)]
    return torch.tensor([-t for _, t in pairs]), tuple(counts)


RIGHT = [
    ("teams", math.comb),
    ("teams", teams_by_product),
    ("teams", teams_by_factorials),
    ("teams", teams_by_listing),
    *[
        (name, mix)
        for name in ("mix_slowly", "mended_mix")
        for mix in (mix_by_token, mix_by_expert)
    ],
    ("mix_slowly", mix_by_sorting),
    ("mended_mix", mix_by_sorting),
    ("sort_choices", sorted_by_loops),
    ("sort_choices", sorted_by_sort),
    ("sort_choices", sorted_by_pairs),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def writes_into_x(x, weights, chosen, experts):
    mixed = mix_by_token(x, weights, chosen, experts)
    x.copy_(mixed)
    return x


def one_too_many(chosen, num_experts):
    tokens, counts = sorted_by_loops(chosen, num_experts)
    return [*tokens, 0], counts


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("teams", lambda e, k: 6.0, "returned 6.0; a whole number"),
        ("teams", lambda e, k: 6, "teams(5, 2) is 6, and there are 10"),
        ("mix_slowly", lambda x, w, c, e: x[:1], "float32 [1, 2], and float32 [2, 2]"),
        ("mix_slowly", lambda x, w, c, e: x.clone(), "the token [1, 2] or [3, 4]: wanted"),
        ("mix_slowly", writes_into_x, "changed a tensor"),
        ("sort_choices", lambda c, e: c.flatten(), "a pair was wanted: tokens and counts"),
        ("sort_choices", lambda c, e: (c.float().flatten(), [1] * e), "rows of whole numbers"),
        ("sort_choices", lambda c, e: (c.flatten(), [0] * e), "the counts [2, 1, 3], and yours"),
        ("sort_choices", one_too_many, "one stretch an expert"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


def test_the_sum_by_hand_is_that_of_the_formula():
    """What the contract calls 50.25 and 201, once more: number · weight · x²."""
    assert 0.5 * 100 * 1**2 + 0.25 * 1 * 1**2 == 50.25
    assert 0.5 * 100 * 2**2 + 0.25 * 1 * 2**2 == 201
